"""Whole trainings end with the bits that they have always ended with, wherever they run."""

from __future__ import annotations

import pytest

import dist_relu as dr
from tests.cases import long
from tests.digests import TRAININGS, Training

OFTEN = [training for training in TRAININGS if training.clip_norm or training.model.startswith("rnn")]
"""One of each kind of model: whatever changes a training changes one whose gradients are clipped, too."""
RARELY = [training for training in TRAININGS if training not in OFTEN]


@pytest.mark.parametrize("training", [*OFTEN, *long(*RARELY)], ids=str)
def test_a_training_ends_with_the_bits_that_it_has_always_ended_with(
    coordinator: dr.Coordinator, digits: dr.data.Split, training: Training
) -> None:
    assert training.digest_on(coordinator, digits.train) == training.digest

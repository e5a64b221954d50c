"""Whole trainings end with the bits that they have always ended with, wherever they run."""

from __future__ import annotations

import pytest

import dist_relu as dr
from tests.digests import TRAININGS, Training


@pytest.mark.parametrize("training", TRAININGS, ids=str)
def test_a_training_ends_with_the_bits_that_it_has_always_ended_with(
    coordinator: dr.Coordinator, digits: dr.data.Split, training: Training
) -> None:
    assert training.digest_on(coordinator, digits.train) == training.digest

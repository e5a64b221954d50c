"""Callbacks decide the same after the same step wherever a run takes place, and however it is cut into calls."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn, optim

RNG = np.random.default_rng(8)
X = RNG.standard_normal((90, 6)).astype("float32")
Y = RNG.integers(0, 3, 90)
TRAIN, HELD_BACK = (X[:70], Y[:70]), (X[70:], Y[70:])
NUM_STEPS = 60  # of batches of 16: 12 epochs


def trainer_of(coordinator: dr.Coordinator, state: dr.RunState | None = None) -> dr.Trainer:
    """A run that soon knows its samples by heart, so that its validation loss rises."""
    optimizer = optim.SGD(0.2, momentum=0.9)
    return coordinator.trainer(nn.mlp((20,), 3), TRAIN, optimizer, batch_size=16, shards=4, seed=5, state=state)


def callbacks_of_a_run() -> list[Any]:
    return [
        dr.ReduceOnPlateau(patience=0, factor=0.5),
        dr.BestModel(monitor="validation_accuracy"),
        dr.EarlyStopping(patience=4, restore_best=True),
    ]


def outcome(trainer: dr.Trainer, callbacks: list[Any]) -> dict[str, Any]:
    _, best, early = callbacks
    return {
        "stopped": early.stopped_step,
        "step": trainer.step,
        "best": (early.best_step, early.best, best.best_step, best.best),
        "lr_scale": trainer.lr_scale,
        "digests": [trainer.model.sha256(), best.model.sha256(), trainer.state().params_sha256],
    }


@cache
def expected() -> dict[str, Any]:
    """What the run comes to with one worker, in one call."""
    with dr.start(backend="serial") as coordinator, trainer_of(coordinator) as trainer:
        callbacks = callbacks_of_a_run()
        trainer.fit(steps=NUM_STEPS, validation=HELD_BACK, validate_every=2, callbacks=callbacks)
        return outcome(trainer, callbacks)


def test_a_run_stops_after_the_same_step_with_the_same_best_models(coordinator: dr.Coordinator) -> None:
    assert 8 < expected()["stopped"] < NUM_STEPS
    assert expected()["lr_scale"] < 1
    assert expected()["digests"][0] != expected()["digests"][2]
    callbacks = callbacks_of_a_run()
    with trainer_of(coordinator) as trainer:
        trainer.fit(steps=NUM_STEPS, validation=HELD_BACK, validate_every=2, callbacks=callbacks)
        assert outcome(trainer, callbacks) == expected()


@pytest.mark.parametrize("cut", [3, 8])
def test_a_resumed_run_stops_where_the_undisturbed_one_does(coordinator: dr.Coordinator, cut: int) -> None:
    with trainer_of(coordinator) as trainer:
        trainer.fit(steps=cut, validation=HELD_BACK, validate_every=2, callbacks=callbacks_of_a_run())
        state = trainer.state()
    callbacks = callbacks_of_a_run()
    with trainer_of(coordinator, state) as resumed:
        resumed.fit(steps=NUM_STEPS - cut, validation=HELD_BACK, validate_every=2, callbacks=callbacks)
        assert outcome(resumed, callbacks) == expected()


@cache
def expected_rates() -> dr.LearningRateCurve:
    with dr.start(backend="serial") as coordinator, trainer_of(coordinator) as trainer:
        return dr.LearningRateFinder(steps=40).find(trainer)


def test_ever_higher_rates_lead_to_the_same_losses_and_leave_the_run_as_it_was(coordinator: dr.Coordinator) -> None:
    with trainer_of(coordinator) as trainer, trainer_of(coordinator) as plain:
        assert dr.LearningRateFinder(steps=40).find(trainer) == expected_rates()
        plain.fit(steps=7)
        trainer.fit(steps=3)
        dr.LearningRateFinder(steps=40).find(trainer)
        trainer.fit(steps=4)
        assert trainer.state() == plain.state()

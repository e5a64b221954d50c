"""Ever higher learning rates are tried until the loss rises, beside a run that stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn, optim

DATA = dr.data.load("digits").train


@pytest.fixture(scope="module")
def serial() -> Iterator[dr.Coordinator]:
    with dr.start(backend="serial") as coordinator:
        yield coordinator


def trainer_of(coordinator: dr.Coordinator, optimizer: optim.Optimizer, **more: Any) -> dr.Trainer:
    return coordinator.trainer(nn.mlp((32,), 10), DATA, optimizer, batch_size=64, shards=4, **more)


def test_a_rate_is_suggested_with_which_a_network_learns(serial: dr.Coordinator) -> None:
    with trainer_of(serial, optim.SGD(0.1, momentum=0.9)) as trainer:
        curve = dr.LearningRateFinder().find(trainer)
    assert curve.suggestion is not None
    for factor, is_good in ((0.01, False), (1, True)):
        with trainer_of(serial, optim.SGD(curve.suggestion * factor, momentum=0.9)) as trainer:
            assert (trainer.fit(epochs=2).epochs[-1].loss < 0.5) == is_good


def test_rates_rise_by_the_same_factor_until_the_loss_has(serial: dr.Coordinator) -> None:
    with trainer_of(serial, optim.SGD(0.1)) as trainer:
        curve = dr.LearningRateFinder(lowest=1e-4, highest=1e4, steps=80).find(trainer)
    rates, smoothed = np.array(curve.rates), np.array(curve.smoothed)
    np.testing.assert_allclose(rates[1:] / rates[:-1], 10**0.1)
    assert rates[0] == pytest.approx(1e-4 * 10**0.05)
    assert len(rates) == len(curve.losses) == len(smoothed) < 80
    limits = 4 * np.minimum.accumulate(smoothed)
    assert np.flatnonzero(smoothed > limits).tolist() == [len(smoothed) - 1]
    assert curve.suggestion in curve.rates[: int(smoothed.argmin()) + 1]


def test_no_rate_is_suggested_where_the_loss_falls_nowhere(serial: dr.Coordinator) -> None:
    with trainer_of(serial, optim.SGD(0.1)) as trainer:
        curve = dr.LearningRateFinder(lowest=1e5, highest=1e9).find(trainer)
    assert curve.suggestion is None
    assert np.isfinite(curve.losses).all()


def test_a_finder_takes_no_more_steps_than_it_is_told(serial: dr.Coordinator) -> None:
    with trainer_of(serial, optim.SGD(0.1)) as trainer:
        assert len(dr.LearningRateFinder(highest=1e-3, steps=12).find(trainer).rates) == 12


@dataclass(frozen=True)
class NoRate(optim.ElementwiseOptimizer):
    """A rule of the user's own without a learning rate."""

    @property
    def num_states(self) -> int:
        return 0

    def hyper(self, step: int, epoch: float) -> tuple[float, ...]:
        return ()

    def update(self, gradient: Any, old: Any, new: Any, hyper: Any) -> None:
        new[0][...] = old[0]


def test_a_rule_without_a_rate_is_refused(serial: dr.Coordinator) -> None:
    with trainer_of(serial, NoRate()) as trainer:
        calls: list[Callable[[], object]] = [
            lambda: dr.LearningRateFinder().find(trainer),
            lambda: trainer.fit(epochs=1, callbacks=[dr.ReduceOnPlateau("loss")]),
        ]
        for call in calls:
            with pytest.raises(
                TypeError, match="NoRate is no dataclass with a learning rate `lr` that could be changed"
            ):
                call()
        assert trainer.step == 0


def test_what_makes_no_search_is_refused() -> None:
    with pytest.raises(ValueError, match=r"LearningRateFinder\(lowest=2\): must be below highest=1"):
        dr.LearningRateFinder(lowest=2, highest=1)
    with pytest.raises(TypeError, match="trainer=3: expected an object of type Trainer"):
        dr.LearningRateFinder().find(3)  # type: ignore[arg-type]

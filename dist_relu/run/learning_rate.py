"""Which learning rate suits a run, by trying ever higher ones."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from typing import final

import numpy as np

from dist_relu.core.checks import check_fields, check_int, check_is, check_positive
from dist_relu.errors import TrainingDiverged, TrainingWarning
from dist_relu.optim import Exponential
from dist_relu.optim.rates import with_learning_rate
from dist_relu.run.trainer import Trainer

_KEPT = 0.9
"""What a smoothed loss keeps of the one before it.  With 0.98, as in fastai, it lags behind by half of 100 steps."""
_RISES = 4.0
"""How many times its minimum a smoothed loss may be."""


@dataclass(frozen=True, kw_only=True)
class LearningRateCurve:
    """Steps at rising learning rates led to these losses.

    rates, losses: of each step, its learning rate and the mean loss of its samples before it.  smoothed: that loss,
    averaged over the steps so far, the last ones most.
    suggestion: the rate at which the smoothed loss falls fastest; None where it falls nowhere.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    suggestion: float | None


@final
@dataclass(frozen=True)
class LearningRateFinder:
    """Tries learning rates from `lowest` to `highest`, each higher than the one before by the same factor.

    It takes up to `steps` steps, and stops when the smoothed loss is more than four times its minimum, or no number any
    more. A good rate for training lies where the loss still falls; where it is lowest, rates are too high already.
    Smith (2017), "Cyclical learning rates for training neural networks", section 3.3; the smoothing and the end are
    those of fastai's `lr_find`.
    """

    lowest: float = 1e-6
    highest: float = 10.0
    steps: int = 100

    def __post_init__(self) -> None:
        check_fields(
            self,
            lowest=check_positive,
            highest=check_positive,
            steps=lambda name, value: check_int(name, value, 2),
        )
        if self.lowest >= self.highest:
            raise ValueError(f"LearningRateFinder(lowest={self.lowest:g}): must be below highest={self.highest:g}.")

    def find(self, trainer: Trainer) -> LearningRateCurve:
        """Try from where a run stands, with its data, options and optimizer, whose state begins anew.

        The run stays as it was, to the bit: the steps are those of another one. The same curve with any number of
        workers.
        """
        check_is("trainer", trainer, Trainer)
        rate = Exponential(self.lowest, self.highest, self.steps / trainer.steps_per_epoch)
        losses = _Losses()
        with trainer.branch(with_learning_rate(trainer.optimizer, rate)) as trial, warnings.catch_warnings():
            warnings.simplefilter("ignore", TrainingWarning)  # the loss is meant to grow
            with suppress(TrainingDiverged):
                trial.fit(steps=self.steps, callbacks=[losses])
        rates = [rate.at((step + 0.5) / trainer.steps_per_epoch) for step in range(len(losses.each))]
        return LearningRateCurve(
            rates=rates, losses=losses.each, smoothed=losses.smoothed, suggestion=_steepest(rates, losses.smoothed)
        )


@final
class _Losses:
    """The losses of steps, which end a call when they have risen too far."""

    def __init__(self) -> None:
        self.each: list[float] = []
        self.smoothed: list[float] = []
        self._sum = 0.0

    def on_steps(self, trainer: Trainer) -> None:
        loss = float(trainer.losses[-1])
        if not isfinite(loss):  # of a step that was skipped
            raise StopIteration
        self.each.append(loss)
        self._sum = _KEPT * self._sum + (1 - _KEPT) * loss
        self.smoothed.append(self._sum / (1 - _KEPT ** len(self.each)))
        if self.smoothed[-1] > _RISES * min(self.smoothed):
            raise StopIteration


def _steepest(rates: Sequence[float], losses: Sequence[float]) -> float | None:
    """Find the rate at which losses fall fastest over its logarithm, on the way to their minimum."""
    first = len(losses) // 10  # the mean of few losses is not smooth yet
    stop = first + int(np.argmin(losses[first:])) + 1
    if stop - first < 2:
        return None
    slopes = np.gradient(losses[first:stop], np.log(rates[first:stop]))
    return rates[first + int(np.argmin(slopes))]

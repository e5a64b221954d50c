"""Estimates with intervals, from measurements that were taken in pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dist_relu.core.arrays import Array

_RESAMPLES = 1000
_LEVEL_PERCENT = 95


@dataclass(frozen=True)
class Interval:
    """An estimate, and the bounds of its 95 % interval."""

    value: float
    low: float
    high: float

    def __mul__(self, factor: float) -> Interval:
        return Interval(self.value * factor, self.low * factor, self.high * factor)

    def __str__(self) -> str:
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"


def median(times: Array, seed: int = 0) -> Interval:
    """Estimate the median of times (repetitions, steps)."""
    return _bootstrapped(times, seed)


def paired_ratio(times: Array, others: Array, seed: int = 0) -> Interval:
    """Estimate how many times longer `times` are than `others`: the median over pairs of the same step.

    Both (repetitions, steps), where those of one repetition were measured in one round.
    """
    return _bootstrapped(times / others, seed)


def _bootstrapped(values: Array, seed: int) -> Interval:
    """The median, and its percentile interval by the bootstrap (Efron and Tibshirani 1993, chapter 13).

    In two stages: repetitions are drawn with replacement, and of each of them its steps (Davison and Hinkley 1997,
    section 3.8), since what disturbs a machine disturbs many steps in a row.
    """
    rng = np.random.default_rng(seed)
    repetitions, steps = values.shape
    drawn = np.empty(_RESAMPLES)
    for i in range(_RESAMPLES):
        rows = rng.integers(repetitions, size=(repetitions, 1))
        drawn[i] = np.median(values[rows, rng.integers(steps, size=(repetitions, steps))])
    tail = (100 - _LEVEL_PERCENT) / 2
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Interval(float(np.median(values)), float(low), float(high))

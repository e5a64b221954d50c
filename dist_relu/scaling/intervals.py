"""Estimates with intervals, from measurements that were taken in pairs."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np

from dist_relu.core.arrays import Array

_RESAMPLES = 1000
_LEVEL = 0.95

ENOUGH_REPETITIONS = 5
"""Of fewer, intervals hold less often than they say; of one, they know nothing of what differs between repetitions."""


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
    section 3.8), since what disturbs a machine disturbs many steps in a row. Draws of few repetitions differ too
    little, so the percentiles are further out than 2.5 and 97.5: Hesterberg's (2015) expanded percentile interval.
    """
    rng = np.random.default_rng(seed)
    repetitions, steps = values.shape
    drawn = np.empty(_RESAMPLES)
    for i in range(_RESAMPLES):
        rows = rng.integers(repetitions, size=(repetitions, 1))
        drawn[i] = np.median(values[rows, rng.integers(steps, size=(repetitions, steps))])
    tail = _tail(repetitions)
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(float(np.median(values)), float(low), float(high))


def _tail(repetitions: int) -> float:
    """Tell what share of the draws is beyond each bound."""
    if repetitions == 1:  # which says nothing of what differs between repetitions
        return (1 - _LEVEL) / 2
    return NormalDist().cdf(-sqrt(repetitions / (repetitions - 1)) * _student(repetitions - 1))


def _student(freedom: int) -> float:
    """Approximate the bound beyond which Student's t lies in half of the cases left (Abramowitz and Stegun, 26.7.5)."""
    z = NormalDist().inv_cdf((1 + _LEVEL) / 2)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return float(sum(term / freedom**power for power, term in enumerate(terms)))

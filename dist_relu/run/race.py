"""Which of several ways is the fastest: they take turns, and those that are clearly slower drop out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

_CLEAR, _CLEAR_TURNS = 1.1, 2
_SLOWER_TURNS = 5
"""A way drops out that was slower by a tenth in each of two turns, or at all in each of five.

Of two that are as fast, one is the slower in five turns out of five in 1 of 16 races.
"""

_LEVEL = 1.03
"""What is no slower than this is as good as the fastest."""


@dataclass(frozen=True, kw_only=True)
class Runner:
    """A way was timed in some turns.  value: what it is called.  steps: in all turns.

    step_s: the median of each turn's steps.
    """

    value: int
    steps: int
    step_s: Sequence[float]

    @property
    def median_s(self) -> float:
        return float(np.median(self.step_s))


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A race came to this.

    value: the fastest, or the first of those that are as good.  left: those that did not drop out, this one with them;
    between them there was no clear difference.  runners: all that took part, in their order.  seconds: so long it took.
    """

    value: int
    left: Sequence[int]
    runners: Sequence[Runner]
    seconds: float


def race(
    values: Sequence[int],
    take_turn: Callable[[int], Sequence[float]],
    *,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Let all take turns until one is clearly the fastest, or time is up.

    Every round has the order of the one before backwards, so that what slows a machine down bit by bit slows all alike,
    and the last begins. Times are compared round by round.

    values: the ways, the cheapest first, which is taken when no other is clearly faster.  take_turn: takes some steps
    in a way, and returns how long each took, in s.  seconds: so long they go on behind the first round, which may be a
    long one, since what is done for the first time has to be made ready.
    """
    began = clock()
    times: dict[int, list[float]] = {value: [] for value in values}
    steps = dict.fromkeys(values, 0)
    left, order, deadline = list(values), list(values), None
    while deadline is None or (len(left) > 1 and clock() < deadline):
        order.reverse()
        for value in order:
            turn = take_turn(value)
            times[value].append(float(np.median(turn)))
            steps[value] += len(turn)
        deadline = clock() + seconds if deadline is None else deadline
        best = _fastest(left, times)
        left = [value for value in left if value == best or not _has_lost(times[value], times[best])]
        order = [value for value in order if value in left]
    best = _fastest(left, times)
    as_good = [value for value in left if np.median(_ratios(times[value], times[best])) <= _LEVEL]
    runners = [Runner(value=value, steps=steps[value], step_s=times[value]) for value in values]
    return Outcome(value=as_good[0], left=left, runners=runners, seconds=clock() - began)


def _fastest(left: Sequence[int], times: dict[int, list[float]]) -> int:
    return min(left, key=lambda value: float(np.median(times[value])))


def _ratios(times: Sequence[float], others: Sequence[float]) -> list[float]:
    """Compare times of the same rounds."""
    return [time_s / other_s for time_s, other_s in zip(times, others, strict=True)]


def _has_lost(times: Sequence[float], best: Sequence[float]) -> bool:
    """Tell whether a way is clearly slower than the fastest."""
    ratios = _ratios(times, best)
    return (len(ratios) >= _CLEAR_TURNS and min(ratios) > _CLEAR) or (len(ratios) >= _SLOWER_TURNS and min(ratios) > 1)

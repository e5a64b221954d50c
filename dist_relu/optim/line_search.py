"""A line search: how far to go along a direction, by the strong Wolfe conditions.

Nocedal and Wright (2006), "Numerical optimization", section 3.5: equations 3.7, algorithms 3.5 and 3.6.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite, sqrt
from typing import NamedTuple, final

from dist_relu.core.arrays import Array
from dist_relu.kernels.long_sums import dot_row

_DECREASE, _CURVATURE = 1e-4, 0.9
"""c1 and c2 of the conditions, as the book has them for quasi-Newton methods."""

_WIDEN, _MOST_TRIALS = 2.0, 25


class Point(NamedTuple):
    """The parameters (P,), their loss, and its gradient (P,) float64."""

    values: Array
    loss: float
    gradient: Array


class _Trial(NamedTuple):
    """A length of step, where it leads, and the slope of the loss there along the direction."""

    step: float
    point: Point
    slope: float


def strong_wolfe(
    along: Callable[[float], Point], start: Point, direction: Array, first: float, *, most: int
) -> tuple[float, Point] | None:
    """Find a step that makes the loss less, and the slope flatter, by as much as its length promises.

    along: where a step of some length leads.  first: the length to try first.  most: how often to try, at most.
    Returns the length and where it leads; None where no step is known that makes the loss less. Where the conditions
    can't be met as far as numbers go, the best step that does so.
    """
    slope = dot_row(start.gradient, direction)
    if slope >= 0:
        return None
    search = _Search(along, direction, _Trial(0.0, start, slope), min(most, _MOST_TRIALS))
    return search.widen(first)


@final
class _Search:
    def __init__(self, along: Callable[[float], Point], direction: Array, start: _Trial, most: int) -> None:
        self._along, self._direction, self._start, self._left = along, direction, start, most

    def widen(self, first: float) -> tuple[float, Point] | None:
        """Algorithm 3.5: go further until an interval holds a step that meets the conditions."""
        before, step = self._start, first
        while self._left:
            trial = self._try(step)
            if not self._is_lower(trial) or (before.step and trial.point.loss >= before.point.loss):
                return self._zoom(before, trial)
            if self._is_flat(trial):
                return trial.step, trial.point
            if trial.slope >= 0:
                return self._zoom(trial, before)
            before, step = trial, step * _WIDEN
        return self._best(before)

    def _zoom(self, low: _Trial, high: _Trial) -> tuple[float, Point] | None:
        """Algorithm 3.6: shrink an interval between a step of least loss and one that is known to be too far."""
        while self._left:
            step = _between(low, high)
            if step in (low.step, high.step):
                break
            trial = self._try(step)
            if not self._is_lower(trial) or trial.point.loss >= low.point.loss:
                high = trial
                continue
            if self._is_flat(trial):
                return trial.step, trial.point
            if trial.slope * (high.step - low.step) >= 0:
                high = low
            low = trial
        return self._best(low)

    def _try(self, step: float) -> _Trial:
        self._left -= 1
        point = self._along(step)
        return _Trial(step, point, dot_row(point.gradient, self._direction) if isfinite(point.loss) else 0.0)

    def _is_lower(self, trial: _Trial) -> bool:
        """Equation 3.7a.  A loss that is no number is not lower."""
        start = self._start
        return trial.point.loss <= start.point.loss + _DECREASE * trial.step * start.slope

    def _is_flat(self, trial: _Trial) -> bool:
        """Equation 3.7b."""
        return abs(trial.slope) <= -_CURVATURE * self._start.slope

    def _best(self, low: _Trial) -> tuple[float, Point] | None:
        return (low.step, low.point) if low.point.loss < self._start.point.loss else None


def _between(low: _Trial, high: _Trial) -> float:
    """The minimum of the cubic through both, equation 3.59, kept away from the ends; the middle where it has none."""
    width = high.step - low.step
    middle = low.step + width / 2
    if not isfinite(high.point.loss):
        return low.step + width / 10
    slopes = low.slope + high.slope - 3 * (low.point.loss - high.point.loss) / (low.step - high.step)
    root = slopes**2 - low.slope * high.slope
    if root < 0:
        return middle
    d = sqrt(root) if width > 0 else -sqrt(root)
    divisor = high.slope - low.slope + 2 * d
    if divisor == 0:
        return middle
    step = high.step - width * (high.slope + d - slopes) / divisor
    least, greatest = sorted((low.step + width / 10, high.step - width / 10))
    return min(max(step, least), greatest) if isfinite(step) else middle

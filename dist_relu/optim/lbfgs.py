"""L-BFGS: steps by a curvature that is learned from the last gradients, for small models and whole data sets.

P parameters.  Vectors are (P,) float64; their products are sums in a fixed order, so that bits are the same everywhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import NamedTuple, final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_fields, check_int, check_not_negative
from dist_relu.core.hints import hinting
from dist_relu.kernels.long_sums import dot_row
from dist_relu.optim.line_search import Point, strong_wolfe

Objective = Callable[[Array], tuple[float, Array]]
"""From the parameters (P,) to the loss and its gradient (P,) float64, which is 0 where the loss is not finite."""

_CURVED = 1e-10
"""Of s·y: a pair of less curvature than this times |y|² says nothing."""


@final
@hinting(
    {
        "max_iter": "max_iterations=...",
        "maxiter": "max_iterations=...",
        "max_eval": "max_evaluations=...",
        "maxfun": "max_evaluations=...",
        "history_size": "history=...",
        "tolerance_grad": "gradient_tolerance=...",
        "tol": "gradient_tolerance=...",
        "alpha": "weight_decay=...",
    }
)
@dataclass(frozen=True)
class LBFGS:
    """Limited-memory BFGS with a line search for the strong Wolfe conditions, for `Coordinator.minimize`.

    It needs the loss of all samples and its gradient, a few times an iteration, and takes no learning rate. It is for
    models and data sets that are small: there it finds better minima than steps over batches, and in less time.

    max_iterations, max_evaluations: how many at most.  history: the number of last steps whose gradients are kept.
    gradient_tolerance: it ends where no element of the gradient is greater.  loss_tolerance: or where an iteration
    makes the loss less by no more than this share of it.
    weight_decay: adds half of this times the sum of the squares of all weights to the loss; parameters of one dimension
    (biases, scales) don't decay. scikit-learn's alpha over the number of samples is the same.

    Nocedal and Wright (2006), "Numerical optimization", algorithms 7.4 and 7.5; the tolerances are those of SciPy's
    L-BFGS-B.
    """

    max_iterations: int = 200
    max_evaluations: int = 15_000
    history: int = 10
    gradient_tolerance: float = 1e-5
    loss_tolerance: float = 1e-9
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_fields(
            self,
            max_iterations=check_int,
            max_evaluations=check_int,
            history=check_int,
            gradient_tolerance=check_not_negative,
            loss_tolerance=check_not_negative,
            weight_decay=check_not_negative,
        )


@dataclass(frozen=True, kw_only=True)
class Iteration:
    """An iteration has come to this.

    number: of iterations that are complete.  loss: with what weight decay adds.  gradient_norm: the greatest magnitude
    of an element.  step: the length along the direction, 1 where that was right.  num_evaluations: so far.
    """

    number: int
    loss: float
    gradient_norm: float
    step: float
    num_evaluations: int


@dataclass(frozen=True, kw_only=True)
class Minimum:
    """A minimisation has come to this.

    losses: before it and after each iteration, with what weight decay adds.  gradient_norm: the greatest magnitude of
    an element in the end.  converged: whether it has ended by a tolerance.  reason: why it has ended, in words.
    """

    losses: list[float]
    gradient_norm: float
    num_iterations: int
    num_evaluations: int
    converged: bool
    reason: str

    @property
    def loss(self) -> float:
        """That of the end."""
        return self.losses[-1]

    def __repr__(self) -> str:
        return (
            f"Minimum(loss: {self.loss:.6g}, iterations: {self.num_iterations}, evaluations: {self.num_evaluations}; "
            f"{self.reason})"
        )


def minimize(
    objective: Objective,
    start: Array,
    rule: LBFGS,
    on_iteration: Callable[[Array, Iteration], object],
) -> Minimum:
    """Minimise an objective from `start` on, (P,), in whose dtype parameters are.

    on_iteration: gets the parameters and what the iteration has come to; StopIteration of it ends the minimisation.
    """
    searched = _Searched(objective, start.dtype)
    point = searched.at(start)
    pairs: deque[_Pair] = deque(maxlen=rule.history)
    losses = [point.loss]

    def end(reason: str, *, converged: bool) -> Minimum:
        return Minimum(
            losses=losses,
            gradient_norm=_greatest(point.gradient),
            num_iterations=len(losses) - 1,
            num_evaluations=searched.num_evaluations,
            converged=converged,
            reason=reason,
        )

    if not isfinite(point.loss):
        raise FloatingPointError(f"The loss is {point.loss} before the first iteration.")
    while True:
        if _greatest(point.gradient) <= rule.gradient_tolerance:
            return end("no element of the gradient is greater than gradient_tolerance", converged=True)
        if len(losses) > rule.max_iterations:
            return end(f"max_iterations={rule.max_iterations} are done", converged=False)
        if searched.num_evaluations >= rule.max_evaluations:
            return end(f"max_evaluations={rule.max_evaluations} are done", converged=False)
        direction = -_two_loops(point.gradient, pairs)
        first = 1.0 if pairs else min(1.0, 1 / np.abs(point.gradient).sum())
        left = rule.max_evaluations - searched.num_evaluations
        found = strong_wolfe(searched.along(point, direction), point, direction, first, most=left)
        if found is None and pairs:
            pairs.clear()  # what they say of the curvature leads nowhere: steepest descent, once
            continue
        if found is None:
            return end("along the gradient no loss is less, as far as the numbers can tell", converged=False)
        step, new = found
        _keep(pairs, new.values.astype(np.float64) - point.values, new.gradient - point.gradient)
        before, point = point.loss, new
        losses.append(point.loss)
        done = Iteration(
            number=len(losses) - 1,
            loss=point.loss,
            gradient_norm=_greatest(point.gradient),
            step=step,
            num_evaluations=searched.num_evaluations,
        )
        try:
            on_iteration(point.values, done)
        except StopIteration:
            return end("a callback has ended it", converged=False)
        if before - point.loss <= rule.loss_tolerance * max(abs(before), abs(point.loss), 1.0):
            return end("an iteration made the loss less by no more than loss_tolerance", converged=True)


class _Pair(NamedTuple):
    """A step s, what it changed in the gradient, y, and 1 / s·y."""

    s: Array
    y: Array
    rho: float


@final
class _Searched:
    """Evaluates an objective where numbers of a dtype can be, and counts how often."""

    def __init__(self, objective: Objective, dtype: np.dtype[np.floating]) -> None:
        self._objective, self._dtype = objective, dtype
        self.num_evaluations = 0

    def at(self, values: Array) -> Point:
        self.num_evaluations += 1
        loss, gradient = self._objective(values)
        return Point(values, loss, gradient)

    def along(self, point: Point, direction: Array) -> Callable[[float], Point]:
        """The function of the length of a step."""
        return lambda step: self.at((point.values + step * direction).astype(self._dtype))


def _two_loops(gradient: Array, pairs: deque[_Pair]) -> Array:
    """The gradient times the inverse of the Hessian that the pairs tell of: algorithm 7.4, with equation 7.20."""
    q = gradient.copy()
    if not pairs:
        return q
    alphas = []
    for s, y, rho in reversed(pairs):
        alphas.append(rho * dot_row(s, q))
        q -= alphas[-1] * y
    s, y, rho = pairs[-1]
    q *= 1 / (rho * dot_row(y, y))
    for (s, y, rho), alpha in zip(pairs, reversed(alphas), strict=True):
        q += (alpha - rho * dot_row(y, q)) * s
    return q


def _keep(pairs: deque[_Pair], s: Array, y: Array) -> None:
    curvature = dot_row(s, y)
    if curvature > _CURVED * dot_row(y, y):
        pairs.append(_Pair(s, y, 1 / curvature))


def _greatest(x: Array) -> float:
    return float(np.abs(x).max(initial=0.0))

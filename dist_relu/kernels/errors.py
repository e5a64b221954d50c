"""Losses of real targets: of each number's distance from its target, averaged over the numbers of a sample.

weights, sums: as in `dist_relu.kernels.losses`.  N batch, F numbers of a sample.
"""

from __future__ import annotations

from dist_relu.core.arrays import Array
from dist_relu.kernels.elementary import clamp
from dist_relu.kernels.jit import scalar, specialise

# What stands for the scalars of a loss in the loop below.


def value(d: float, delta: float) -> float:
    """Compute the loss of a distance."""
    raise NotImplementedError


def slope(d: float, delta: float) -> float:
    """Compute the loss's derivative by the distance."""
    raise NotImplementedError


def errors(y: Array, target: Array, weights: Array, delta: float, scale: float, dy: Array, sums: Array) -> None:
    """sums = the losses of y - target, and no predictions.

    y, target, dy: (N, F).  delta: what the loss takes besides.  dy gets the gradient of the sum times `scale`.
    """
    size = y.shape[1]
    at = y.dtype.type(delta)
    loss = 0.0
    for n in range(y.shape[0]):
        weight = weights[n] if weights.shape[0] else 1.0
        factor = y.dtype.type(weight * (scale / size))
        for f in range(size):
            d = y[n, f] - target[n, f]
            loss += weight * value(d, at)
            dy[n, f] = factor * slope(d, at)
    sums[0], sums[1] = loss / size, 0
    if sums.shape[0] > 2:
        sums[2] = 0


@scalar
def _square(d: float, delta: float) -> float:
    return d * d


@scalar
def _square_slope(d: float, delta: float) -> float:
    return 2.0 * d


@scalar
def _huber(d: float, delta: float) -> float:
    """d²/2 up to a magnitude of `delta`, and from there on as it goes on straight.  Huber (1964)."""
    near = clamp(d, -delta, delta)
    return near * (d - 0.5 * near)


@scalar
def _huber_slope(d: float, delta: float) -> float:
    return clamp(d, -delta, delta)


@scalar
def _absolute(d: float, delta: float) -> float:
    return abs(d)


@scalar
def _sign(d: float, delta: float) -> float:
    return 1.0 if d > 0.0 else (-1.0 if d < 0.0 else d)


squared_error = specialise(errors, "squared_error", {"value": _square, "slope": _square_slope})
huber = specialise(errors, "huber", {"value": _huber, "slope": _huber_slope})
absolute_error = specialise(errors, "absolute_error", {"value": _absolute, "slope": _sign})

"""Norms, clipping and averages of flat vectors.  n elements."""

from __future__ import annotations

import numpy as np

from dist_relu.arrays import Array
from dist_relu.kernels.compile import kernel


@kernel
def sum_of_squares(x: Array, lanes: Array) -> float:
    """Σ x².  x: (n,).  lanes: (L,) float64, scratch memory.

    Element i is added to lane i mod L, and then lane to lane: a fixed order that is also a vectorised one.
    """
    width = lanes.shape[0]
    lanes[:] = 0
    for start in range(0, x.shape[0], width):
        part = x[start : start + width]
        for i in range(part.shape[0]):
            value = np.float64(part[i])  # float() would leave it in float32
            lanes[i] += value * value
    total = 0.0
    for lane in lanes:
        total += lane
    return total


@kernel
def clip(x: Array, limit: float) -> None:
    """x = x between -limit and limit, in place; (n,).  NaN goes through."""
    high = x.dtype.type(limit)
    low = -high
    for i in range(x.shape[0]):
        v = x[i]
        v = low if v < low else v
        x[i] = high if v > high else v


@kernel
def scale(x: Array, factor: float) -> None:
    """x *= factor, in place; (n,)."""
    by = x.dtype.type(factor)
    for i in range(x.shape[0]):
        x[i] *= by


@kernel
def average(old: Array, value: Array, new: Array, decay: float) -> None:
    """new = decay old + (1 - decay) value; all (n,)."""
    weight = old.dtype.type(1 - decay)
    for i in range(old.shape[0]):
        new[i] = old[i] + weight * (value[i] - old[i])

"""Dropout: numbers that are dropped by random bits."""

from __future__ import annotations

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import kernel


@kernel
def drop(x: Array, bits: Array, threshold: int, scale: float, y: Array) -> None:
    """y = scale x where bits >= threshold, else 0.  x, y: (n,).  bits: (n,) uint16."""
    factor, zero = x.dtype.type(scale), x.dtype.type(0)
    for i in range(x.shape[0]):
        v = factor * x[i]
        y[i] = v if bits[i] >= threshold else zero


@kernel
def drop_backward(dy: Array, bits: Array, threshold: int, scale: float) -> None:
    """dy = scale dy where bits >= threshold, else 0, in place.  dy: (n,).  bits: (n,) uint16."""
    factor, zero = dy.dtype.type(scale), dy.dtype.type(0)
    for i in range(dy.shape[0]):
        v = factor * dy[i]
        dy[i] = v if bits[i] >= threshold else zero

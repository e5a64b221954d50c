"""Sums of two branches, alone and with ReLU behind them.  All arrays are flat, (n,)."""

from __future__ import annotations

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import kernel


@kernel
def add(main: Array, side: Array, cuts: bool, y: Array) -> None:
    """y = main + side, or max(main + side, 0) where it `cuts`; y is neither of the two."""
    zero = y.dtype.type(0)
    if cuts:
        for i in range(y.shape[0]):
            v = main[i] + side[i]
            y[i] = zero if v <= zero else v
    else:
        for i in range(y.shape[0]):
            y[i] = main[i] + side[i]


@kernel
def add_backward(dy: Array, y: Array, main: Array) -> None:
    """dy = dy where ReLU let y through, else 0, in place; and the same in `main`."""
    zero = y.dtype.type(0)
    for i in range(dy.shape[0]):
        d, v = dy[i], y[i]
        d = zero if v <= zero else d
        dy[i] = d
        main[i] = d

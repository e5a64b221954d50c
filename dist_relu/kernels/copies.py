"""Copies of numbers, arrays, parts of them, in the same order or another.  N rows, C and K columns."""

from __future__ import annotations

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import kernel


@kernel
def fill(x: Array, number: float) -> None:
    """x = the number; x: (n,)."""
    for i in range(x.shape[0]):
        x[i] = number


@kernel
def copy(source: Array, target: Array) -> None:
    """target = source, in its own dtype; both (n,)."""
    for i in range(target.shape[0]):
        target[i] = source[i]


@kernel
def take_columns(x: Array, first: int, y: Array) -> None:
    """y = the columns of x from `first` on; x: (N, C), y: (N, K)."""
    for n in range(y.shape[0]):
        for k in range(y.shape[1]):
            y[n, k] = x[n, first + k]


@kernel
def put_columns(x: Array, first: int, y: Array) -> None:
    """The columns of y from `first` on = x; x: (N, K), y: (N, C)."""
    for n in range(x.shape[0]):
        for k in range(x.shape[1]):
            y[n, first + k] = x[n, k]


@kernel
def transpose(x: Array, y: Array) -> None:
    """y[n] = x[n]ᵀ; x: (N, A, B), y: (N, B, A)."""
    for n in range(x.shape[0]):
        for a in range(x.shape[1]):
            for b in range(x.shape[2]):
                y[n, b, a] = x[n, a, b]


@kernel
def look_up(symbols: Array, limit: int, table: Array, indices: Array, y: Array) -> None:
    """y = table[symbols], and indices = symbols as integers; symbols, indices: (M,), table: (V, K), y: (M, K).

    Raises IndexError unless symbols are whole numbers below `limit`.
    """
    for m in range(symbols.shape[0]):
        symbol = symbols[m]
        if not (symbol >= 0 and symbol < limit):  # so that NaN is none
            raise IndexError("an embedding has no vector for a number that it was asked for")
        index = int(symbol)
        if index != symbol:
            raise IndexError("an embedding has vectors for whole numbers only")
        indices[m] = index
        for k in range(y.shape[1]):
            y[m, k] = table[index, k]


@kernel
def scale_into(x: Array, factor: float, y: Array) -> None:
    """y = factor x, computed in the dtype of x; both (n,)."""
    by = x.dtype.type(factor)
    for i in range(y.shape[0]):
        y[i] = by * x[i]

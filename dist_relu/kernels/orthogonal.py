"""Rows of a matrix are made orthonormal."""

from __future__ import annotations

from math import sqrt

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import kernel
from dist_relu.kernels.long_sums import dot_row

_BLOCK = 8
"""Rows that those before them are read for at once."""


@kernel
def orthonormalize(rows: Array) -> None:
    """Make the rows orthonormal, one after another: of each is left what is orthogonal to those before it, at length 1.

    rows: (N, M) float64, N <= M, of full rank.  Modified Gram-Schmidt, twice, which is enough for all digits; Parlett
    (1998), "The symmetric eigenvalue problem", section 6.9.
    """
    for first in range(0, rows.shape[0], _BLOCK):
        stop = min(first + _BLOCK, rows.shape[0])
        for _ in range(2):
            for j in range(first):
                for i in range(first, stop):
                    _subtract(dot_row(rows[j], rows[i]), rows[j], rows[i])
            for i in range(first, stop):
                for j in range(first, i):
                    _subtract(dot_row(rows[j], rows[i]), rows[j], rows[i])
                size = sqrt(dot_row(rows[i], rows[i]))
                for m in range(rows.shape[1]):
                    rows[i, m] /= size


@kernel
def _subtract(factor: float, x: Array, y: Array) -> None:
    """y = y - factor · x."""
    for m in range(y.shape[0]):
        y[m] -= factor * x[m]

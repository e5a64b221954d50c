"""Samples that are stored otherwise than a model wants them, on their way into a batch.

M samples that are stored, N of the data set, n of the batch, F numbers in each.
"""

from __future__ import annotations

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import kernel


@kernel
def gather_scaled(x: Array, numbers: Array, first: int, stop: int, scale: float, out: Array) -> None:
    """out = scale x[numbers[first:stop]], multiplied as float32.  x: (M, F).  out: (stop - first, F)."""
    factor, one = np.float32(scale), out.dtype.type(1)
    for n in range(stop - first):
        source, target = x[numbers[first + n]], out[n]
        for f in range(source.shape[0]):
            target[f] = one * (np.float32(source[f]) * factor)


@kernel
def choose(chosen: Array, numbers: Array, first: int, stop: int, out: Array) -> None:
    """out = chosen[numbers[first:stop]].  chosen: (N,) int64.  out: (stop - first,) int64."""
    for n in range(stop - first):
        out[n] = chosen[numbers[first + n]]


@kernel
def find_no_number(x: Array) -> int:
    """Tell whether there is a row with NaN or an infinity: 0, or 1 and its number.  x: (n, F)."""
    zero = x.dtype.type(0)
    for n in range(x.shape[0]):
        row, num_bad = x[n], 0
        for f in range(row.shape[0]):
            num_bad += 0 if row[f] - row[f] == zero else 1
        if num_bad:
            return 1 + n
    return 0

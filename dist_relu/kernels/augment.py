"""Samples on their way into a batch, and random changes of them.

N samples of the data set, n of the batch, H W height and width, C channels.
"""

from __future__ import annotations

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import kernel


@kernel
def gather_rows(x: Array, numbers: Array, first: int, stop: int, out: Array) -> None:
    """out = x[numbers[first:stop]].  x: (N, F).  out: (stop - first, F)."""
    for n in range(stop - first):
        source, target = x[numbers[first + n]], out[n]
        for f in range(source.shape[0]):
            target[f] = source[f]


@kernel
def gather(x: Array, y: Array, numbers: Array, first: int, stop: int, samples: Array, targets: Array) -> None:
    """Gather samples, the rows of x, and their targets, those of y, as `gather_rows` does, in one call."""
    gather_rows(x, numbers, first, stop, samples)
    gather_rows(y, numbers, first, stop, targets)


@kernel
def shift_and_flip(images: Array, channels: int, rows: Array, shifts: Array, flips: Array, out: Array) -> None:
    """Gather images through windows of their own size, with zeros around them, and mirror some left to right.

    images: (N, H, W·C).  rows: (n,) of them.  shifts: (n, 2), how far down and right the window lies.
    flips: (n,) bool.  out: (n, H, W·C).
    """
    _, height, length = images.shape
    width, zero = length // channels, images.dtype.type(0)
    sources, inside = np.empty(length, np.int64), np.empty(length, np.bool_)
    for n in range(rows.shape[0]):
        image, target = images[rows[n]], out[n]
        for i in range(length):
            w, c = i // channels, i % channels
            column = (width - 1 - w if flips[n] else w) + shifts[n, 1]
            inside[i] = 0 <= column < width
            sources[i] = min(max(column, 0), width - 1) * channels + c
        for h in range(height):
            line = h + shifts[n, 0]
            if 0 <= line < height:
                for i in range(length):
                    value = image[line, sources[i]]  # read in any case: a conditional load is not vectorised
                    target[h, i] = value if inside[i] else zero
            else:
                target[h] = 0


@kernel
def mix(x: Array, partners: Array, share: float, out: Array) -> None:
    """out = share x + (1 - share) x[partners].  x, out: (n, F), of different memory.  partners: (n,)."""
    mine = x.dtype.type(share)
    theirs = x.dtype.type(1 - share)
    for n in range(x.shape[0]):
        row, other, target = x[n], x[partners[n]], out[n]
        for f in range(row.shape[0]):
            target[f] = mine * row[f] + theirs * other[f]

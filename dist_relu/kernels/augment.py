"""Samples on their way into a batch, and random changes of them.

N samples of the data set, n of the batch, H W height and width, C channels.
"""

from __future__ import annotations

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import kernel
from dist_relu.kernels.llvm import empty
from dist_relu.kernels.philox import STATE_SIZE, begin, draw_integer, draw_uniform


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
def draw_windows(key: Array, clock: Array, shard: int, most: int, share: float, shifts: Array, flips: Array) -> None:
    """Draw the windows of `shift_and_flip`: up to `most` away in every direction, and a share of them mirrored.

    key, clock: see `kernels.philox`.  shifts: (n, 2) int64.  flips: (n,) bool.
    """
    state = empty(STATE_SIZE, np.uint64)
    begin(key, clock, shard, 0, state)
    for n in range(shifts.shape[0]):
        for axis in range(2):
            shifts[n, axis] = draw_integer(state, 2 * most) - most
    for n in range(flips.shape[0]):
        flips[n] = draw_uniform(state) < share


@kernel
def shift_and_flip(
    images: Array,
    channels: int,
    planes: int,
    numbers: Array,
    first: int,
    stop: int,
    shifts: Array,
    flips: Array,
    out: Array,
) -> None:
    """Gather images through windows of their own size, with zeros around them, and mirror some left to right.

    images: (N · planes, H, W·C), of which sample n has `planes` from n · planes on.  numbers[first:stop]: the samples.
    shifts: (n, 2), how far down and right the window lies.  flips: (n,) bool.  out: (n · planes, H, W·C).
    """
    _, height, length = images.shape
    width, zero = length // channels, images.dtype.type(0)
    sources, inside = empty(length, np.int64), empty(length, np.bool_)
    for n in range(stop - first):
        for i in range(length):
            w, c = i // channels, i % channels
            column = (width - 1 - w if flips[n] else w) + shifts[n, 1]
            inside[i] = 0 <= column < width
            sources[i] = min(max(column, 0), width - 1) * channels + c
        for plane in range(planes):
            image, target = images[numbers[first + n] * planes + plane], out[n * planes + plane]
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

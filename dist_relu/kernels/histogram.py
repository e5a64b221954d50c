"""How numbers are distributed, and what their columns come to.  N rows, K columns.

Numbers are counted by their first bits: sign, exponent, and the first bit of the mantissa. So the limits of bins are
powers of two and the numbers half-way between them; no number is compared with any, and bins cost nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import kernel
from dist_relu.kernels.llvm import bits_of

_SMALLEST, _LARGEST = -8, 6
_MAGNITUDES = [0.0, *(f * 2.0**e for e in range(_SMALLEST, _LARGEST) for f in (1.0, 1.5)), 2.0**_LARGEST, np.inf]

EDGES: tuple[float, ...] = (*(-m for m in _MAGNITUDES[:0:-1]), *_MAGNITUDES)
"""The limits of the bins, from -inf over 0 to inf. A limit belongs to the bin beside it that is farther from 0, and 0
itself to the one above it."""

NUM_BINS = len(EDGES) - 1

_NUM_TABLES = 4
"""Tables that take turns: to count the same number twice in a row in one of them would be to wait."""

_PADDING = 8
"""Between the tables: places that lie a multiple of 4 KiB apart are in each other's way."""


def empty_table(dtype: np.dtype[Any]) -> Array:
    """Make what `count_sums` counts numbers of this dtype in: zeros, (tables, places and padding)."""
    return np.zeros((_NUM_TABLES, len(bin_of_place(dtype)) + _PADDING), np.int64)


def bin_of_place(dtype: np.dtype[Any]) -> Array:
    """Tell the bin of each place in a table, (places,); NUM_BINS for what is no number."""
    words = np.dtype(f"u{dtype.itemsize}")
    places = np.arange(1 << (np.finfo(dtype).nexp + 2)).astype(words)
    magnitudes = np.abs((places << words.type(_shift(dtype))).view(dtype))  # the smallest ones there
    bins = np.searchsorted(_MAGNITUDES[:-1], magnitudes, side="right") - 1
    half = NUM_BINS // 2
    signed = np.where(places < len(places) // 2, half + bins, half - 1 - bins)
    return np.where(np.isnan(magnitudes), NUM_BINS, signed)


def count_sums(z: Array, bias: Array, table: Array) -> None:
    """Count the numbers z + bias.  z: (N, K), bias: (K,).  table: see `empty_table`."""
    places = np.empty(len(bias), f"u{z.itemsize}")
    _count_sums(z, bias, places, places.dtype.type(_shift(z.dtype)), table)


def _shift(dtype: np.dtype[Any]) -> int:
    return int(np.finfo(dtype).nmant) - 1


@kernel
def _count_sums(z: Array, bias: Array, places: Array, shift: int, table: Array) -> None:
    """Count the numbers z + bias.

    places: (K,) whole numbers without a sign, scratch.  shift: beyond the bits that do not count.
    """
    t0, t1, t2, t3 = table[0], table[1], table[2], table[3]
    size = bias.shape[0]
    whole = size // 4 * 4
    for n in range(z.shape[0]):
        row = z[n]
        for k in range(size):
            places[k] = bits_of(row[k] + bias[k]) >> shift
        for k in range(0, whole, 4):
            t0[places[k]] += 1
            t1[places[k + 1]] += 1
            t2[places[k + 2]] += 1
            t3[places[k + 3]] += 1
        for k in range(whole, size):
            t0[places[k]] += 1


@kernel
def take_counts(table: Array, bins: Array, counts: Array) -> None:
    """Add what a table has counted to `counts`, and clear it.  bins: (places,).  counts: (NUM_BINS + 1,)."""
    for t in range(table.shape[0]):
        for i in range(bins.shape[0]):
            counts[bins[i]] += table[t, i]
            table[t, i] = 0


@kernel
def keep_zero_columns(x: Array, columns: Array, num: int) -> int:
    """Keep those of the first `num` columns in which every number is 0; returns how many, which then stand in front.

    x: (N, K).  columns: int64, numbers of columns. A column is not looked at any more after its first number that is
    not 0, so nearly all of them cost next to nothing.
    """
    for n in range(x.shape[0]):
        kept = 0
        for i in range(num):
            k = columns[i]
            columns[kept] = k
            kept += x[n, k] == 0
        num = kept
    return num


@kernel
def output_statistics(x: Array, nonzero: Array, sums: Array, squares: Array) -> tuple[int, float, float]:
    """Return how many numbers are 0, their mean, and the sum of squared distances from it, in one pass over x.

    x: (N, K), N >= 1.  nonzero: (K,) int64, gets how many in each column are not 0.  sums, squares: (K,) float64,
    scratch. Distances are from the mean of the first row: lest the variance be the small difference of large numbers.
    """
    pivot = 0.0
    for k in range(x.shape[1]):
        pivot += x[0, k]
    pivot /= x.shape[1]
    nonzero[:] = 0
    sums[:] = 0
    squares[:] = 0
    whole = x.shape[0] // 4 * 4
    for n in range(0, whole, 4):  # rows at a time, so that sums are fetched less often
        x0, x1, x2, x3 = x[n], x[n + 1], x[n + 2], x[n + 3]
        for k in range(x.shape[1]):
            nonzero[k] += int(x0[k] != 0) + int(x1[k] != 0) + int(x2[k] != 0) + int(x3[k] != 0)
        for k in range(x.shape[1]):
            d0, d1 = np.float64(x0[k]) - pivot, np.float64(x1[k]) - pivot
            d2, d3 = np.float64(x2[k]) - pivot, np.float64(x3[k]) - pivot
            sums[k] += (d0 + d1) + (d2 + d3)
            squares[k] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3)
    for n in range(whole, x.shape[0]):
        row = x[n]
        for k in range(x.shape[1]):
            d = np.float64(row[k]) - pivot
            nonzero[k] += row[k] != 0
            sums[k] += d
            squares[k] += d * d
    num_nonzero, total, total_squares = 0, 0.0, 0.0
    for k in range(x.shape[1]):
        num_nonzero += nonzero[k]
        total += sums[k]
        total_squares += squares[k]
    size = x.shape[0] * x.shape[1]
    around_mean = total_squares - total * total / size
    around_mean = 0.0 if around_mean < 0.0 else around_mean
    return size - num_nonzero, pivot + total / size, around_mean

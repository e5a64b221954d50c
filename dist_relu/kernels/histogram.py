"""How numbers are distributed, and what their columns come to.  N rows, K columns.

Numbers are counted by their first bits: sign, exponent, and the first bit of the mantissa. So the limits of bins are
powers of two and the numbers half-way between them; no number is compared with any, and bins cost nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dist_relu.arrays import Array
from dist_relu.kernels.compile import kernel

_SMALLEST, _LARGEST = -8, 6
_MAGNITUDES = [0.0, *(f * 2.0**e for e in range(_SMALLEST, _LARGEST) for f in (1.0, 1.5)), 2.0**_LARGEST, np.inf]

EDGES: tuple[float, ...] = (*(-m for m in _MAGNITUDES[:0:-1]), *_MAGNITUDES)
"""The limits of the bins, from -inf over 0 to inf. A limit belongs to the bin beside it that is farther from 0, and 0
itself to the one above it."""

NUM_BINS = len(EDGES) - 1

_NUM_TABLES = 4
"""Tables that take turns: to count the same number twice in a row in one of them would be to wait."""


def empty_table(dtype: np.dtype[Any]) -> Array:
    """What `count_sums` counts numbers of this dtype in: zeros, (tables, places)."""
    return np.zeros((_NUM_TABLES, len(bin_of_place(dtype))), np.int64)


def bin_of_place(dtype: np.dtype[Any]) -> Array:
    """The bin of each place in a table, (places,); NUM_BINS for what is no number."""
    words = np.dtype(f"u{dtype.itemsize}")
    places = np.arange(1 << (np.finfo(dtype).nexp + 2)).astype(words)
    magnitudes = np.abs((places << words.type(_shift(dtype))).view(dtype))  # the smallest ones there
    bins = np.searchsorted(_MAGNITUDES[:-1], magnitudes, side="right") - 1
    half = NUM_BINS // 2
    signed = np.where(places < len(places) // 2, half + bins, half - 1 - bins)
    return np.where(np.isnan(magnitudes), NUM_BINS, signed)


def count_sums(z: Array, bias: Array, table: Array) -> None:
    """Count the numbers z + bias.  z: (N, K), bias: (K,).  table: see `empty_table`."""
    row = np.empty_like(bias)
    words = row.view(f"u{row.itemsize}")
    _count_sums(z, bias, row, words, words.dtype.type(_shift(z.dtype)), table)


def _shift(dtype: np.dtype[Any]) -> int:
    return int(np.finfo(dtype).nmant) - 1


@kernel
def _count_sums(z: Array, bias: Array, row: Array, words: Array, shift: int, table: Array) -> None:
    """words: the memory of `row`, as whole numbers without a sign."""
    t0, t1, t2, t3 = table[0], table[1], table[2], table[3]
    size = bias.shape[0]
    whole = size // 4 * 4
    for n in range(z.shape[0]):
        numbers = z[n]
        for k in range(size):
            row[k] = numbers[k] + bias[k]
        for k in range(size):
            words[k] >>= shift
        for k in range(0, whole, 4):
            t0[words[k]] += 1
            t1[words[k + 1]] += 1
            t2[words[k + 2]] += 1
            t3[words[k + 3]] += 1
        for k in range(whole, size):
            t0[words[k]] += 1


@kernel
def take_counts(table: Array, bins: Array, counts: Array) -> None:
    """Add what a table has counted to `counts`, and clear it.  bins: (places,).  counts: (NUM_BINS + 1,)."""
    for t in range(table.shape[0]):
        for i in range(table.shape[1]):
            counts[bins[i]] += table[t, i]
            table[t, i] = 0


@kernel
def column_statistics(x: Array, pivot: float, nonzero: Array, sums: Array, squares: Array) -> None:
    """Of each column how many numbers are not 0, and Σ (x - pivot) and Σ (x - pivot)².

    x: (N, K).  pivot: near the mean, lest variance be the small difference of large numbers.  nonzero: (K,) int64.
    sums, squares: (K,) float64.
    """
    nonzero[:] = 0
    sums[:] = 0
    squares[:] = 0
    for n in range(x.shape[0]):
        row = x[n]
        for k in range(row.shape[0]):
            nonzero[k] += row[k] != 0
        for k in range(row.shape[0]):
            d = np.float64(row[k]) - pivot
            sums[k] += d
            squares[k] += d * d

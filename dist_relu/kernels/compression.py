"""Gradients are made smaller to be sent: rounded, thinned out, or of low rank.  n numbers.

Rounding and thinning out work on the bits of numbers, where an order of magnitudes is one of whole numbers. Matrices of
rank r are two of r rows each: p (r, N) and q (r, M) stand for pᵀq.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import kernel
from dist_relu.kernels.long_sums import dot_row

DIGIT_BITS = 11
"""Bits of a magnitude that are looked at in one pass over all."""

_INFINITE = 0x7F800000


@kernel
def round_to_bfloat16(bits: Array) -> None:
    """Round float32 numbers to the 8 bits of a bfloat16, ties to even.  bits: (n,) uint32."""
    for i in range(bits.shape[0]):
        word = np.int64(bits[i])
        rounded = word + 0x7FFF + ((word >> 16) & 1)
        kept = word | 0x400000 if (word & 0x7FFFFFFF) > _INFINITE else rounded
        bits[i] = kept & 0xFFFF0000


@kernel
def round_to_float16(bits: Array) -> None:
    """Round float32 numbers to those of float16, ties to even; from 65520 on they are infinite.  bits: (n,) uint32.

    Below 2^-14 float16 has fewer bits, down to one of 2^-24.
    """
    for i in range(bits.shape[0]):
        word: Any = np.int64(bits[i])
        magnitude = word & 0x7FFFFFFF
        exponent = magnitude >> 23
        drop = 13 + min(max(113 - exponent, 0), 10)
        rounded = (magnitude + (1 << (drop - 1)) - 1 + ((magnitude >> drop) & 1)) >> drop << drop
        rounded = (0x33800000 if magnitude > 0x33000000 else 0) if exponent < 103 else rounded
        rounded = _INFINITE if magnitude >= 0x477FF000 else rounded
        rounded = (magnitude | 0x400000) & 0x7FFFE000 if magnitude > _INFINITE else rounded
        bits[i] = (word & 0x80000000) | rounded


@kernel
def pack_bfloat16(bits: Array, words: Array) -> None:
    """Write numbers that are rounded to bfloat16 with 16 bits each.  bits: (n,) uint32.  words: (n,) uint16."""
    for i in range(words.shape[0]):
        words[i] = bits[i] >> 16


@kernel
def unpack_bfloat16(words: Array, bits: Array) -> None:
    """The reverse of `pack_bfloat16`."""
    for i in range(words.shape[0]):
        bits[i] = np.int64(words[i]) << 16


@kernel
def pack_float16(bits: Array, words: Array) -> None:
    """Write numbers that are rounded to float16 with 16 bits each.  bits: (n,) uint32.  words: (n,) uint16."""
    for i in range(words.shape[0]):
        word: Any = np.int64(bits[i])
        magnitude = word & 0x7FFFFFFF
        exponent = magnitude >> 23
        small = ((magnitude & 0x7FFFFF) | 0x800000) >> min(max(126 - exponent, 0), 24)
        half = (magnitude >> 13) - (112 << 10) if exponent > 112 else small
        half = 0x7C00 | ((magnitude >> 13) & 0x3FF) if magnitude >= _INFINITE else half
        words[i] = ((word >> 16) & 0x8000) | half


@kernel
def unpack_float16(words: Array, bits: Array, table: Array) -> None:
    """The reverse of `pack_float16`.  table: (2^16,) uint32, the bits of all numbers of float16 as float32."""
    for i in range(words.shape[0]):
        bits[i] = table[words[i]]


def float16_table() -> Array:
    """Return the table for `unpack_float16`."""
    with np.errstate(invalid="ignore"):
        return np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32).view(np.uint32)


@kernel
def keep_largest(bits: Array, rest: Array, count: int, num_bits: int, counts: Array) -> None:
    """Keep the `count` numbers of largest magnitude, of equal ones the first; the others go to `rest`, and become 0.

    bits, rest: (n,) unsigned, those of numbers.  num_bits: of a magnitude: 31 or 63.  counts: (2^DIGIT_BITS,) int64,
    scratch.  NaN counts as larger than all.
    The smallest magnitude that is kept is found digit by digit: how many numbers begin with it, and have which digit
    next?
    """
    mask = (np.int64(1) << num_bits) - 1
    least, left, high = np.int64(0), count, num_bits
    while high > 0:
        low = max(high - DIGIT_BITS, 0)
        digits = (1 << (high - low)) - 1
        for d in range(digits + 1):
            counts[d] = 0
        for i in range(bits.shape[0]):
            magnitude = np.int64(bits[i]) & mask
            if magnitude >> high == least >> high:
                counts[(magnitude >> low) & digits] += 1
        digit = digits
        while counts[digit] < left:
            left -= counts[digit]
            digit -= 1
        least |= np.int64(digit) << low
        high = low
    for i in range(bits.shape[0]):
        magnitude = np.int64(bits[i]) & mask
        if magnitude > least:
            rest[i] = 0
        elif magnitude == least and left > 0:
            left -= 1
            rest[i] = 0
        else:
            rest[i] = bits[i]
            bits[i] = 0


@kernel
def project(rows: Array, q: Array, p: Array, first: int) -> None:
    """p[k, first + i] = rows[i] · q[k]; rows: (n, M), q: (r, M), p: (r, N)."""
    for i in range(rows.shape[0]):
        for k in range(q.shape[0]):
            p[k, first + i] = dot_row(rows[i], q[k])


@kernel
def orthonormalize_or_drop(rows: Array) -> None:
    """Make the rows (r, N) float64 orthonormal, one after another; a row that is 0 then, or was, stays 0.

    Modified Gram-Schmidt, twice, as `dist_relu.kernels.orthogonal` has it for rows that are known to be independent.
    """
    for i in range(rows.shape[0]):
        for _ in range(2):
            for j in range(i):
                factor = dot_row(rows[j], rows[i])
                for n in range(rows.shape[1]):
                    rows[i, n] -= factor * rows[j, n]
        size = sqrt(dot_row(rows[i], rows[i]))
        for n in range(rows.shape[1]):
            rows[i, n] = rows[i, n] / size if size > 0 else 0.0


@kernel
def project_columns(matrix: Array, p: Array, q: Array, first: int, stop: int) -> None:
    """q[k] = p[k] · matrix, for columns `first` to `stop`; matrix: (N, M), p: (r, N), q: (r, M).

    One chain of additions for each number: what it loses is part of what is left for the next step.
    """
    for k in range(p.shape[0]):
        total = q[k, first:stop]
        for j in range(total.shape[0]):
            total[j] = 0
        for i in range(p.shape[1]):
            factor, row = p[k, i], matrix[i, first:stop]
            for j in range(total.shape[0]):
                total[j] += factor * row[j]


@kernel
def leave_low_rank(rows: Array, p: Array, q: Array, first: int, rest: Array) -> None:
    """rows = those of pᵀq from `first` on, rest = what they had beyond; rows, rest: (n, M), p: (r, N), q: (r, M)."""
    for i in range(rows.shape[0]):
        row, left = rows[i], rest[i]
        for j in range(row.shape[0]):
            left[j] = row[j]
            row[j] = 0
        for k in range(q.shape[0]):
            factor, direction = p[k, first + i], q[k]
            for j in range(row.shape[0]):
                row[j] += factor * direction[j]
        for j in range(row.shape[0]):
            left[j] -= row[j]


@kernel
def take_or_draw(kept: Array, drawn: Array, q: Array) -> None:
    """q = `kept`, but rows that are all 0 are those that were drawn; all (r, M)."""
    for k in range(q.shape[0]):
        is_empty = True
        for j in range(q.shape[1]):
            is_empty &= kept[k, j] == 0
        for j in range(q.shape[1]):
            q[k, j] = drawn[k, j] if is_empty else kept[k, j]

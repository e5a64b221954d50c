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
from dist_relu.kernels.llvm import bits_of, float32_of
from dist_relu.kernels.long_sums import dot_row

DIGIT_BITS = 11
"""Bits of a magnitude that are looked at in one pass over all."""

_INFINITE = 0x7F800000
"""The bits of a float32."""

_LEAST_NORMAL, _OVERFLOW = np.float32(2**-14), np.float32(65520)
"""The smallest float32 with all bits of a float16, and the smallest that becomes infinite as one."""

_COARSER = np.float32(2**13)
"""So many times as large is the last bit of a float16."""

_INFINITY, _ONE_HALF = np.float32(np.inf), np.float32(0.5)


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

    Below 2^-14 float16 has fewer bits, down to one of 2^-24. A number is added to a larger one, below whose last bit is
    what is to be rounded off, and that one is taken away again.
    """
    for i in range(bits.shape[0]):
        word: Any = np.int64(bits[i])
        size, power = float32_of(word & 0x7FFFFFFF), float32_of(word & _INFINITE)
        larger = (power if power > _LEAST_NORMAL else _LEAST_NORMAL) * _COARSER
        rounded, no_number = (size + larger) - larger, float32_of((word | 0x400000) & 0x7FFFE000)
        rounded = rounded if size < _OVERFLOW else _INFINITY
        rounded = rounded if size <= _INFINITY else no_number
        bits[i] = (word & 0x80000000) | bits_of(rounded)


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
    """Write numbers that are rounded to float16 with 16 bits each.  bits: (n,) uint32.  words: (n,) uint16.

    Those below 2^-14 are multiples of 2^-24, which are counted by the last bit of a float32 from 0.5 to 1.
    """
    for i in range(words.shape[0]):
        word: Any = np.int64(bits[i])
        magnitude = word & 0x7FFFFFFF
        size = float32_of(magnitude)
        small, half, large = bits_of(size + _ONE_HALF), (magnitude >> 13) - 0x1C000, (magnitude >> 13) - 0x38000
        half = half if size < _INFINITY else large
        half = small - 0x3F000000 if size < _LEAST_NORMAL else half
        words[i] = ((word >> 16) & 0x8000) | half


@kernel
def unpack_float16(words: Array, bits: Array) -> None:
    """The reverse of `pack_float16`."""
    for i in range(words.shape[0]):
        word: Any = np.int64(words[i])
        half = word & 0x7FFF
        number, large = float32_of((half << 13) + 0x38000000), float32_of((half << 13) + 0x70000000)
        small = float32_of(half + 0x3F000000) - _ONE_HALF
        number = number if number < _OVERFLOW else large
        number = small if number < _LEAST_NORMAL else number
        bits[i] = ((word & 0x8000) << 16) | bits_of(number)


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
    """Make the rows (r, N) float64 orthonormal, one after another; one that depends on those before becomes 0.

    Modified Gram-Schmidt, twice, as `dist_relu.kernels.orthogonal` has it for rows that are known to be independent.
    What an independent row has left behind the first time it keeps the second time. Where it loses more than half of
    its length again, that was rounding alone, and not orthogonal to the others: Kahan's "twice is enough", in Parlett
    (1980), "The symmetric eigenvalue problem".
    """
    for i in range(rows.shape[0]):
        square = dot_row(rows[i], rows[i])
        for _ in range(2):
            before = square
            for j in range(i):
                factor = dot_row(rows[j], rows[i])
                for n in range(rows.shape[1]):
                    rows[i, n] -= factor * rows[j, n]
            square = dot_row(rows[i], rows[i])
        size = sqrt(square)
        for n in range(rows.shape[1]):
            rows[i, n] = rows[i, n] / size if square > before / 4 else 0.0


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

"""Sums that are exact, whatever the order of their terms: one counter for each exponent that a number may have.

A float32 is m 2^(e - 150), with a whole m of 24 bits and its sign, and e from 1 to 254. What is added up are whole
numbers, and those do not round; after Neal (2015), "Fast exact summation using small and large superaccumulators".
"""

from __future__ import annotations

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import kernel

NUM_EXPONENTS = 255


@kernel
def add_exactly(bits: Array, sums: Array) -> None:
    """Add numbers to the sums of their columns, and their squares.

    bits: (n, C) uint32, those of float32, all of them finite.  sums: (C, NUM_EXPONENTS, 3) int64: of m, and of the
    lower 24 bits and the other bits of m m. Up to 2^38 numbers fit into it.
    """
    for n in range(bits.shape[0]):
        for c in range(bits.shape[1]):
            word = np.int64(bits[n, c])
            written = (word >> 23) & 0xFF
            is_normal = np.int64(1) if written else np.int64(0)
            exponent, whole = written + 1 - is_normal, (word & 0x7FFFFF) + (is_normal << 23)
            square = whole * whole
            sums[c, exponent, 0] += -whole if word >> 31 else whole
            sums[c, exponent, 1] += square & 0xFFFFFF
            sums[c, exponent, 2] += square >> 24

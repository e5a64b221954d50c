"""Numbers of 16 bits: what float32 and float64 are rounded to, and how they travel.

A sum whose terms are rounded is rounded again, and so on up the summation tree. So whatever leaves a node is a number
of 16 bits already, and nothing is lost on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, final

import numpy as np

from dist_relu.core.arrays import Array, aligned_empty
from dist_relu.kernels.compression import (
    pack_bfloat16,
    pack_float16,
    round_to_bfloat16,
    round_to_float16,
    unpack_bfloat16,
    unpack_float16,
)
from dist_relu.kernels.copies import copy
from dist_relu.kernels.ordered_sum import add
from dist_relu.partition import Fold

Rounding = Literal["bfloat16", "float16"]

HALF_BYTES = 2


@final
class Halves:
    """This rounds numbers to 16 bits, and writes rounded ones as 16 bits; for one thread at a time.

    Numbers of float64 become float32 first.
    """

    def __init__(self, to: Rounding, size: int) -> None:
        """size: so many numbers of float64 are worked on at a time, at most."""
        self._single = aligned_empty((size,), np.float32)  # takes no memory before it is written
        self._round: Callable[[Array], None] = round_to_bfloat16
        self._pack: Callable[[Array, Array], None] = pack_bfloat16
        self._unpack: Callable[[Array, Array], None] = unpack_bfloat16
        if to == "float16":
            self._round, self._pack, self._unpack = round_to_float16, pack_float16, unpack_float16

    def round(self, x: Array) -> None:
        """Round x (n,) in place."""
        if x.dtype == np.float32:
            self._round(x.view(np.uint32))
            return
        single = self._single[: len(x)]
        copy(x, single)
        self._round(single.view(np.uint32))
        copy(single, x)

    def pack(self, x: Array, words: Array) -> None:
        """Write rounded numbers x (n,) as words (n,) uint16."""
        if x.dtype != np.float32:
            single = self._single[: len(x)]
            copy(x, single)
            x = single
        self._pack(x.view(np.uint32), words)

    def unpack(self, words: Array, x: Array) -> None:
        """Read words (n,) uint16 as numbers x (n,)."""
        if x.dtype == np.float32:
            self._unpack(words, x.view(np.uint32))
            return
        single = self._single[: len(x)]
        self._unpack(words, single.view(np.uint32))
        copy(single, x)


@final
class RoundedSum:
    """Adds rounded rows along the summation tree, and rounds every sum; the rows are changed.

    carries: one number for each row.
    """

    def __init__(self, carries: Sequence[int], halves: Halves) -> None:
        self._fold = Fold(carries, self._add)
        self._halves = halves

    def __call__(self, rows: Array, first: int, total: Array) -> None:
        """total (n,) = all rows (R, >= first + n) together from column `first` on."""
        self._fold.begin()
        for row in rows[:, first : first + len(total)]:
            self._fold.push(row)
            self._fold.carry()
        (rounded,) = self._fold.sums()
        copy(rounded, total)

    def _add(self, left: Array, right: Array) -> Array:
        add(left, right)
        self._halves.round(left)
        return left

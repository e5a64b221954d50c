"""Blocks are what the messages of an exchange hold: some columns of some rows, as an array that can travel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, final

import numpy as np

from dist_relu.comm.halves import HALF_BYTES, Halves
from dist_relu.core.arrays import Array


class Section(NamedTuple):
    """Sums from element `start` to `stop` are rounded to `halves` wherever they are added; None: they are not."""

    start: int
    stop: int
    halves: Halves | None = None


def sections_within(sections: Sequence[Section], start: int, stop: int) -> list[Section]:
    """Return what of the sections lies between these elements, counted from `start`."""
    return [
        Section(max(one.start, start) - start, min(one.stop, stop) - start, one.halves)
        for one in sections
        if one.start < stop and start < one.stop
    ]


class Block(ABC):
    """A block is some columns of some rows of a matrix.

    array: what travels.
    """

    array: Array

    @abstractmethod
    def pack(self) -> None:
        """Take in what stands in the matrix."""

    @abstractmethod
    def unpack(self) -> None:
        """Bring what has arrived into the matrix."""


def block_of(matrix: Array, rows: Sequence[int], start: int, stop: int, sections: Sequence[Section]) -> Block:
    """Make the block of the columns from `start` to `stop`.  sections: of the columns of the matrix."""
    within = sections_within(sections, start, stop)
    if any(section.halves for section in within):
        return _HalvedBlock([matrix[row, start:stop] for row in rows], within)
    return _PlainBlock(matrix, rows, slice(start, stop))


@final
class _PlainBlock(Block):
    """This block is the matrix itself where it can be."""

    def __init__(self, matrix: Array, rows: Sequence[int], columns: slice) -> None:
        view = matrix[rows[0] : rows[-1] + 1, columns]
        self._rows = [matrix[row, columns] for row in rows]
        self._is_view = len(view) == len(rows) and view.flags.c_contiguous
        self.array = view if self._is_view else np.empty((len(rows), view.shape[1]), matrix.dtype)

    def pack(self) -> None:
        if not self._is_view:
            for row, target in zip(self._rows, self.array, strict=True):
                target[:] = row

    def unpack(self) -> None:
        if not self._is_view:
            for row, target in zip(self.array, self._rows, strict=True):
                target[:] = row


@final
class _HalvedBlock(Block):
    """This block has 16 bits for each number that is rounded, and the others as they are."""

    def __init__(self, rows: Sequence[Array], sections: Sequence[Section]) -> None:
        words_of_plain = rows[0].itemsize // HALF_BYTES
        sizes = [(one.stop - one.start) * (1 if one.halves else words_of_plain) for one in sections]
        self.array = np.empty(len(rows) * sum(sizes), np.uint16)
        self._halved: list[tuple[Halves, Array, Array]] = []
        self._plain: list[tuple[Array, Array]] = []
        place = 0
        for row in rows:
            for section, size in zip(sections, sizes, strict=True):
                numbers, words = row[section.start : section.stop], self.array[place : place + size]
                place += size
                if section.halves:
                    self._halved.append((section.halves, numbers, words))
                else:
                    self._plain.append((numbers, words.view(row.dtype)))

    def pack(self) -> None:
        for halves, numbers, words in self._halved:
            halves.pack(numbers, words)
        for numbers, target in self._plain:
            target[:] = numbers

    def unpack(self) -> None:
        for halves, numbers, words in self._halved:
            halves.unpack(words, numbers)
        for target, numbers in self._plain:
            target[:] = numbers

"""Where gradients come from when they are summed over all shards.

The part of a gradient that one worker sums is a chunk. Its source is either a *slot*, where workers have
written partial sums, or a *product*, whose factors all workers have left in shared memory and which the owner of
the chunk multiplies out. Both end as partial sums that the optimiser's kernel adds up on its way.

S shards, R rows of partial sums, n elements of the chunk.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import final

import numpy as np

from dist_relu.core.arrays import Array, aligned_empty
from dist_relu.kernels import ordered_sum as kernels
from dist_relu.kernels.products import multiply_transposed
from dist_relu.partition import Fold, PartialSums, stack_depth


class Source(ABC):
    """Where the gradient of a chunk comes from."""

    @abstractmethod
    def partial_sums(self, shard_bounds: Sequence[tuple[int, int]]) -> PartialSums:
        """What is left to add; valid until the next call.  shard_bounds: the rows of the batch in each shard."""


@final
class SlotSource(Source):
    """Partial sums that lie in shared memory.

    rows: (R, slot length), one row for every subtree that a worker summed; the chunk begins at column `first`.
    carries: how the rows are added.
    """

    def __init__(self, rows: Array, first: int, carries: Sequence[int]) -> None:
        stack = aligned_empty((stack_depth(carries), kernels.BLOCK), rows.dtype)
        self._sums = PartialSums(rows, first, np.array(carries, np.int64), stack)

    def partial_sums(self, shard_bounds: Sequence[tuple[int, int]]) -> PartialSums:
        return self._sums


@final
class ProductSource(Source):
    """The rows `start` to `stop` of xᵀ·dz, multiplied out shard by shard.

    x: (N·T, C) and dz: (N·T, K) of the whole batch, in shared memory, T rows for every sample.  scratch: (depth of the
    tree, >= n), of this process: small enough for the second-level cache, and shared by its products.  carries: one
    number per shard.
    """

    def __init__(
        self, x: Array, dz: Array, rows_per_sample: int, start: int, stop: int, carries: Sequence[int], scratch: Array
    ) -> None:
        size = (stop - start) * dz.shape[1]
        self._x = x
        self._columns = start, stop
        self._dz = dz
        self._rows_per_sample = rows_per_sample
        # The update adds what the last shard leaves on the stack, on its way through the tile.
        self._fold = Fold([*carries[:-1], 0], self._add)
        self._flat = [row[:size] for row in scratch]
        self._tiles = [row.reshape(stop - start, dz.shape[1]) for row in self._flat]
        num_left = 1 + carries[-1]
        self._sums = PartialSums(
            scratch,
            0,
            np.array([0] * (num_left - 1) + [carries[-1]], np.int64),
            aligned_empty((num_left, kernels.BLOCK), scratch.dtype),
        )

    def partial_sums(self, shard_bounds: Sequence[tuple[int, int]]) -> PartialSums:
        fold = self._fold
        fold.begin()
        for first, last in shard_bounds:
            rows = slice(first * self._rows_per_sample, last * self._rows_per_sample)
            multiply_transposed(self._x[rows], *self._columns, self._dz[rows], self._tiles[fold.depth])
            fold.push(fold.depth)
            fold.carry()
        return self._sums

    def _add(self, left: int, right: int) -> int:
        """Add tile `right` into tile `left`."""
        kernels.add(self._flat[left], self._flat[right])
        return left

"""Gradients that are summed over all shards come from slots or products.

The part of a gradient that one worker sums is a chunk. Its source is either a *slot*, where workers have
written partial sums, or a *product*, whose factors all workers have left in shared memory and which the owner of
the chunk multiplies out. Both end as partial sums that the optimiser's kernel adds up on its way. Where sums are to be
of 16 bits, a *rounded* source makes them of those of groups of shards.

S shards, R rows of partial sums, n elements of the chunk.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from dist_relu.comm.halves import Halves
from dist_relu.core.arrays import Array, aligned_empty
from dist_relu.kernels import ordered_sum as kernels
from dist_relu.kernels.products import multiply_transposed
from dist_relu.nn import Param
from dist_relu.partition import Fold, PartialSums, SummationTree, TreeNode, stack_depth
from dist_relu.reduction.buckets import HEAD
from dist_relu.reduction.pieces import TAIL, Piece, largest_tile
from dist_relu.reduction.plan import ReductionPlan

ShardBounds = Sequence[tuple[int, int]]
"""The rows of a batch in each shard."""


@dataclass(frozen=True, kw_only=True)
class ReductionMemory:
    """A worker needs this beside the plan.

    params: of its model, whose gradients it lets point to where they are summed.
    factors: x (N, ...) and dz (N, ...) of the whole batch, for each parameter (by its number) whose gradient is their
    product.  slots, totals: of the shapes that the plan has.  All are shared by a node, but for `params`.
    """

    params: Sequence[Param]
    factors: Mapping[int, tuple[Array, Array]]
    slots: Array
    totals: Array


class Source(ABC):
    """A source is where the gradient of a chunk comes from."""

    @abstractmethod
    def partial_sums(self, shard_bounds: ShardBounds) -> PartialSums:
        """Return what is left to add; valid until the next call.  shard_bounds: of the batch, as far as summed."""


@final
class SlotSource(Source):
    """This source has partial sums that lie in shared memory.

    rows: (R, slot length), one row for every subtree that a worker summed; the chunk begins at column `first`.
    carries: how the rows are added.
    """

    def __init__(self, rows: Array, first: int, carries: Sequence[int]) -> None:
        stack = aligned_empty((stack_depth(carries), kernels.BLOCK), rows.dtype)
        self._sums = PartialSums(rows, first, np.array(carries, np.int64), stack)

    def partial_sums(self, shard_bounds: ShardBounds) -> PartialSums:
        return self._sums


@final
class ProductSource(Source):
    """This source has the rows `start` to `stop` of xᵀ·dz, multiplied out shard by shard.

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

    def partial_sums(self, shard_bounds: ShardBounds) -> PartialSums:
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


@final
class RoundedSource(Source):
    """This source has the sums of groups of shards rounded to 16 bits, and so all sums of them along the tree.

    groups: the source of each, and where its shards are among those of all.  carries: one number for each group.
    scratch: (depth of the tree, >= size), of this process, and shared by such sources.  size: n.
    """

    def __init__(
        self,
        groups: Sequence[tuple[Source, slice]],
        carries: Sequence[int],
        halves: Halves,
        scratch: Array,
        size: int,
    ) -> None:
        self._groups = groups
        self._halves = halves
        self._fold = Fold(carries, self._add)
        self._rows = [row[:size] for row in scratch]
        stack = aligned_empty((1, kernels.BLOCK), scratch.dtype)
        self._sums = PartialSums(scratch, 0, np.zeros(1, np.int64), stack)

    def partial_sums(self, shard_bounds: ShardBounds) -> PartialSums:
        fold = self._fold
        fold.begin()
        for source, shards in self._groups:
            row = self._rows[fold.depth]
            kernels.ordered_sum(*source.partial_sums(shard_bounds[shards]), row)
            self._halves.round(row)
            fold.push(fold.depth)
            fold.carry()
        return self._sums

    def _add(self, left: int, right: int) -> int:
        """Add row `right` into row `left`."""
        kernels.add(self._rows[left], self._rows[right])
        self._halves.round(self._rows[left])
        return left


@final
class Sources:
    """This makes the sources of pieces, summed over some of the shards: one subtree of the summation tree, or all."""

    def __init__(self, plan: ReductionPlan, memory: ReductionMemory) -> None:
        self._plan, self._memory = plan, memory
        self._tree = tree = SummationTree(plan.shards)
        self._subtrees = [subtree for subtrees in plan.subtrees for subtree in subtrees]  # of each row
        carries, _ = tree.fold(tree.leaves(0, plan.shards))
        largest = largest_tile(plan.pieces)
        self._scratch = aligned_empty((stack_depth(carries), largest), memory.slots.dtype)
        if plan.rounding:
            largest = max(largest, *(piece.stop - piece.start for piece in plan.pieces))
            self._rounded_scratch = aligned_empty(
                (stack_depth(self._carries_of(plan.groups)), largest), memory.slots.dtype
            )
            self._halves = Halves(plan.rounding, largest)

    def of_piece(self, piece: Piece, shards: range) -> Source:
        """Make the source of a piece's gradient, as passes leave it."""
        if piece.rows is None:
            return self._in_slots(piece.column, shards)
        x, dz = self._memory.factors[piece.param]
        num_inputs, num_units = self._memory.params[piece.param].shape
        rows, rows_of_dz = x.reshape(-1, num_inputs), dz.reshape(-1, num_units)
        carries, _ = self._tree.fold(self._tree.leaves(shards.start, shards.stop))
        return ProductSource(rows, rows_of_dz, len(rows) // len(x), *piece.rows, carries, self._scratch)

    def rounded(self, of_piece: Callable[[Piece, range], Source], piece: Piece, shards: range) -> Source:
        """Make the source of a piece's gradient with its sums rounded, if the plan says so and the piece is trained.

        of_piece: makes that of a group of shards, or of all `shards` where nothing is rounded.
        """
        if not self._plan.rounding or self._memory.params[piece.param].momentum is not None:
            return of_piece(piece, shards)
        groups = [group for group in self._plan.groups if group.start in shards]
        terms = [
            (of_piece(piece, group), slice(group.start - shards.start, group.stop - shards.start)) for group in groups
        ]
        carries = self._carries_of(groups)
        return RoundedSource(terms, carries, self._halves, self._rounded_scratch, piece.stop - piece.start)

    def of_tail(self, shards: range) -> SlotSource:
        """Make the source of the tail of the slots."""
        return self._in_slots(self._plan.num_columns, shards)

    def finished(self, piece: Piece) -> SlotSource:
        """Make a source of the totals, where the gradient of a piece is complete."""
        return SlotSource(self._memory.totals.reshape(1, -1), HEAD + piece.start, [0])

    def gathered(self, piece: Piece, shards: range) -> SlotSource:
        """Make the source of a piece's gradient in the rows that all nodes have sent."""
        return self._in_rows(self._gathered_rows, HEAD + piece.start, shards)

    def gathered_tail(self, shards: range) -> SlotSource:
        """Make the source of the tail in these rows."""
        return self._in_rows(self._gathered_rows, HEAD - TAIL, shards)

    def _carries_of(self, groups: Sequence[range]) -> Sequence[int]:
        """Tell how the sums of neighbouring groups are added."""
        level = self._plan.group_level or 0
        return self._tree.fold([TreeNode(level, group.start >> level) for group in groups])[0]

    @property
    def _gathered_rows(self) -> Array:
        return self._memory.totals.reshape(len(self._subtrees), -1)

    def _in_slots(self, column: int, shards: range) -> SlotSource:
        return self._in_rows(self._memory.slots, column, shards)

    def _in_rows(self, rows: Array, column: int, shards: range) -> SlotSource:
        """rows: one for each subtree, those of `shards` become partial sums."""
        within = [row for row, subtree in enumerate(self._subtrees) if self._tree.shards_of(subtree).start in shards]
        carries, _ = self._tree.fold([self._subtrees[row] for row in within])
        return SlotSource(rows[within[0] : within[-1] + 1], column, carries)

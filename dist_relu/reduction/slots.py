"""Slots: where workers leave the gradients that are no products, summed over their shards.  S shards."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.kernels.ordered_sum import ordered_sum
from dist_relu.nn import Sequential
from dist_relu.nn.passes import Layout
from dist_relu.partition import Fold, SummationTree, TreeNode, bounds, stack_depth
from dist_relu.reduction.sources import SlotSource

TAIL = 2
"""Numbers behind the gradient in a slot: loss and number of correct samples. So they are summed at no extra cost."""


def slots_shape(model: Sequential, layout: Layout, shards: int, workers: int) -> tuple[int, int]:
    """A row for every subtree that a worker sums alone; as long as all gradients that are no products."""
    sizes = (prod(param.shape) for number, param in enumerate(model.params) if number not in layout.products)
    return sum(map(len, _subtrees(shards, workers))), sum(sizes) + TAIL


@final
class Slots:
    """The gradients that are no products: where this worker leaves its sums, and where all sums lie.

    A slot is laid out as the summed parameters, in layer order, and the tail. This worker's stack of partial sums
    grows from its first shared row; what goes beyond its rows is private, since it does not stay.
    """

    def __init__(self, model: Sequential, layout: Layout, slots: Array, shards: int, rank: int, workers: int) -> None:
        tree = SummationTree(shards)
        subtrees = _subtrees(shards, workers)
        self.shards = range(*bounds(shards, workers)[rank])
        carries, kept = tree.fold(tree.leaves(self.shards.start, self.shards.stop))
        first_row = sum(map(len, subtrees[:rank]))
        shared = list(slots[first_row : first_row + len(kept)])
        private = [np.empty_like(slots[0]) for _ in range(stack_depth(carries) - len(kept))]
        self._stack = shared + private
        summed = [param for number, param in enumerate(model.params) if number not in layout.products]
        self._places = [param.places() for param in summed]
        self._views = [_views(row, [param.shape for param in summed]) for row in self._stack]
        self._fold = Fold(carries, _left)  # of the numbers of rows: one that others are added to keeps its place
        self.rows = slots
        self._tree = tree
        self._subtrees = [node for nodes in subtrees for node in nodes]  # of each row
        self._total_tail = np.empty(TAIL, slots.dtype)
        self._tail = self.source(slots.shape[1] - TAIL, range(shards))

    def begin(self) -> None:
        """Begin with an empty stack."""
        self._fold.begin()

    def push(self) -> Array:
        """Bind the model's gradients to the next row of the stack, which is returned."""
        number = self._fold.depth
        for places, view in zip(self._places, self._views[number], strict=True):
            places["grad"] = view
        self._fold.push(number)
        row: Array = self._stack[number]
        return row

    def carry(self) -> None:
        """Add the topmost rows as the summation tree asks after this shard."""
        self.carry_columns(0, None)
        self._fold.carry()

    def carry_columns(self, first: int, stop: int | None) -> None:
        """The additions of `carry`, for columns `first` to `stop` alone; they must not be carried again."""
        top = self._fold.depth - 1
        for number in range(top, top - self._fold.num_additions, -1):
            self._stack[number - 1][first:stop] += self._stack[number][first:stop]

    def source(self, column: int, shards: range) -> SlotSource:
        """What stands from `column` on, summed over some shards: one subtree of the summation tree, or all."""
        within = [row for row, node in enumerate(self._subtrees) if self._tree.shards_of(node).start in shards]
        carries, _ = self._tree.fold([self._subtrees[row] for row in within])
        return SlotSource(self.rows[within[0] : within[-1] + 1], column, carries)

    def total_tail(self) -> tuple[float, int]:
        """Summed loss and num_correct of the whole batch; every worker sums these few numbers for itself."""
        ordered_sum(*self._tail.partial_sums([]), self._total_tail)
        return float(self._total_tail[0]), int(self._total_tail[1])


def _left(left: int, right: int) -> int:
    return left


def _subtrees(shards: int, workers: int) -> list[list[TreeNode]]:
    """For every worker the subtrees of the summation tree that it sums alone."""
    tree = SummationTree(shards)
    return [tree.fold(tree.leaves(first, stop))[1] for first, stop in bounds(shards, workers)]


def _views(row: Array, shapes: Sequence[tuple[int, ...]]) -> list[Array]:
    views: list[Any] = []
    start = 0
    for shape in shapes:
        stop = start + prod(shape)
        views.append(row[start:stop].reshape(shape))
        start = stop
    return views

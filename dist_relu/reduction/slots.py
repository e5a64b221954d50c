"""In slots workers leave the gradients that are no products, summed over their shards."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.kernels.ordered_sum import add
from dist_relu.partition import Fold, stack_depth
from dist_relu.reduction.plan import ReductionPlan
from dist_relu.reduction.sources import ReductionMemory


@final
class Slots:
    """This worker leaves the gradients that are no products in its slots, summed.

    A slot is laid out as the summed parameters, in layer order, and the tail. This worker's stack of partial sums
    grows from its first shared row; what goes beyond its rows is private, since it does not stay.
    """

    def __init__(self, plan: ReductionPlan, memory: ReductionMemory, rank: int) -> None:
        tree, shards = plan.tree_of_worker, plan.shards_of(rank)
        carries, kept = tree.fold(tree.leaves(shards.start, shards.stop))
        first_row = sum(map(len, plan.subtrees[:rank]))
        shared = list(memory.slots[first_row : first_row + len(kept)])
        private = [np.empty_like(memory.slots[0]) for _ in range(stack_depth(carries) - len(kept))]
        self._stack = shared + private
        summed = [param for number, param in enumerate(memory.params) if number not in memory.factors]
        self._places = [param.places() for param in summed]
        self._views = [views_of(row, [param.shape for param in summed]) for row in self._stack]
        self._fold = Fold(carries, _left)  # of the numbers of rows: one that others are added to keeps its place

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
        """Do the additions of `carry` for columns `first` to `stop` alone; they must not be carried again."""
        top = self._fold.depth - 1
        for number in range(top, top - self._fold.num_additions, -1):
            add(self._stack[number - 1][first:stop], self._stack[number][first:stop])


def _left(left: int, right: int) -> int:
    return left


def views_of(row: Array, shapes: Sequence[tuple[int, ...]]) -> list[Array]:
    """A slot as one view for each of the summed parameters, which have these shapes."""
    views: list[Any] = []
    start = 0
    for shape in shapes:
        stop = start + prod(shape)
        views.append(row[start:stop].reshape(shape))
        start = stop
    return views

"""Sums over a whole batch in the middle of its passes: of a few numbers that every shard has, and all need at once.

Each shard has a row in memory that the workers of a node share. When all have filled theirs, the workers meet, the
first ones of the nodes send one another what their nodes have, and everybody adds all rows along the summation tree. So
few numbers are not worth being added on the way.

S shards, n numbers of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import numpy as np

from dist_relu.comm.channel import MAX_TAG
from dist_relu.comm.exchange import OrderedSum
from dist_relu.core.arrays import Array
from dist_relu.partition import SummationTree
from dist_relu.reduction.plan import ReductionPlan
from dist_relu.runtime.world import World

_TAG = MAX_TAG - 2
_NUM_SLOTS = 2
"""Sums that lie in memory: nobody can be two ahead of somebody who still reads, since all meet in between."""


def batch_sums_shape(shards: int, sizes: Sequence[int]) -> tuple[int, int]:
    """Return the shape of the float64 memory that sums of so many numbers each need."""
    return _NUM_SLOTS, shards * max(sizes, default=0)


@final
class BatchSums:
    """This is a worker's part in sums over a batch.

    For each: `begin`, then numbers into `rows` of its shards, then `meet`.
    After the last sum of a batch the workers of a node must meet once more before another batch.

    rows: (S, n), those of all shards.
    """

    rows: Array

    def __init__(self, shards: int, memory: Array, complete: Callable[[Array], object]) -> None:
        """memory: of the shape `batch_sums_shape`, shared by the node.

        complete: (rows): return when all of them are filled; `RowExchange`, or nothing where one worker has all shards.
        """
        tree = SummationTree(shards)
        carries, _ = tree.fold(tree.leaves(0, shards))
        self._add = OrderedSum(carries, np.float64)
        self._shards, self._memory, self._complete = shards, memory, complete

    def begin(self, number: int, size: int) -> None:
        """Begin with sums of `size` numbers.  number: of these sums in their batch."""
        self.rows = self._memory[number % _NUM_SLOTS, : self._shards * size].reshape(self._shards, size)

    def meet(self) -> Array:
        """Wait for the rows of all shards; returns their sums (n,).  Collective."""
        self._complete(self.rows)
        sums = np.empty(self.rows.shape[1])
        self._add(self.rows, 0, sums)
        return sums


@final
class RowExchange:
    """The rows of all shards come to every worker."""

    def __init__(self, world: World, plan: ReductionPlan) -> None:
        self._barrier = world.node.barrier
        self._progress_engine = world.progress_engine
        bounds = [(plan.shards_of(ranks[0]).start, plan.shards_of(ranks[-1]).stop) for ranks in plan.nodes]
        self._here = slice(*bounds[world.node.number])
        self._others = [
            (ranks.start, slice(*shards))
            for number, (ranks, shards) in enumerate(zip(plan.nodes, bounds, strict=True))
            if number != world.node.number
        ]
        self._leads = world.node.rank == 0
        self._under_way = 0

    def __call__(self, rows: Array) -> None:
        """Wait until all have filled the rows of their shards.  Collective."""
        self._barrier.wait()
        if self._others:
            if self._leads:
                self._exchange(rows)
            self._barrier.wait()

    def _exchange(self, rows: Array) -> None:
        """Bring the rows of this node to the others, and theirs here."""
        engine = self._progress_engine
        assert engine is not None
        with engine.lock:
            self._under_way = 2 * len(self._others)
            for rank, shards in self._others:
                engine.receive(rows[shards], rank, _TAG, self._through)
                engine.send(rows[self._here], rank, _TAG, self._through)
        engine.wait_until(lambda: not self._under_way)

    def _through(self) -> None:
        self._under_way -= 1

"""The sum of arrays over the workers of a node, on its own: what the training step does fused with the update."""

from __future__ import annotations

from typing import final

from dist_relu.comm.barrier import Barrier
from dist_relu.core.arrays import Array
from dist_relu.kernels.ordered_sum import ordered_sum
from dist_relu.partition import SummationTree, bounds
from dist_relu.reduction.sources import SlotSource


@final
class AllReduce:
    """Add the rows of `slots` into `total`.

    slots: (ranks, n), shared, row r written by rank r.  total: (n,), shared, of the same dtype.
    The sum runs along the summation tree over ranks, each rank adding its own chunk.
    """

    def __init__(self, slots: Array, total: Array, rank: int, barrier: Barrier) -> None:
        num_ranks = len(slots)
        start, stop = bounds(len(total), num_ranks)[rank]
        tree = SummationTree(num_ranks)
        self._source = SlotSource(slots, start, tree.fold(tree.leaves(0, num_ranks))[0])
        self._total = total[start:stop]
        self._barrier = barrier

    def __call__(self) -> None:
        """Collective.  All rows must be written before; afterwards every rank may read the total."""
        self._barrier.wait()
        ordered_sum(*self._source.partial_sums([]), self._total)
        self._barrier.wait()

"""Over several nodes, what each has summed of groups of shards comes to all of them, and is added nowhere on the way.

Whatever is made of the sums of groups is then made on every node alike, so each has all that the run is. It takes as
many times more bytes as there are subtrees that workers sum alone.
"""

from __future__ import annotations

from typing import final

from dist_relu.comm.channel import MAX_TAG
from dist_relu.kernels.ordered_sum import ordered_sum
from dist_relu.reduction.buckets import HEAD
from dist_relu.reduction.pieces import TAIL, join
from dist_relu.reduction.plan import ReductionPlan
from dist_relu.reduction.sources import ReductionMemory, ShardBounds, Sources
from dist_relu.runtime.world import World

_TAG = MAX_TAG - 4


@final
class Gathering:
    """A worker writes its chunks of its node's rows; the first ones of the nodes send these to one another.

    A row holds what a worker has summed alone, see `ReductionPlan.totals_shape`.
    """

    def __init__(self, world: World, plan: ReductionPlan, memory: ReductionMemory, sources: Sources) -> None:
        assert world.progress_engine is not None
        self._progress_engine = world.progress_engine
        self._barrier = world.node.barrier
        self._leads = world.node.rank == 0
        tree = plan.tree_of_worker
        rows = memory.totals.reshape(sum(map(len, plan.subtrees)), -1)
        rows_of_node = []
        first = 0
        for ranks in plan.nodes:
            num_rows = sum(len(plan.subtrees[rank]) for rank in ranks)
            rows_of_node.append(rows[first : first + num_rows])
            first += num_rows
        self._here = rows_of_node[world.node.number]
        self._others = [
            (ranks.start, rows_of_node[number])
            for number, ranks in enumerate(plan.nodes)
            if number != world.node.number
        ]
        subtrees = [subtree for rank in world.node.ranks for subtree in plan.subtrees[rank]]
        pieces = [join(chunk, plan.pieces) for chunk in plan.chunks[world.rank]]
        self._terms = []
        for row, subtree in zip(self._here, subtrees, strict=True):
            shards = tree.shards_of(subtree)
            part = slice(shards.start, shards.stop)
            self._terms += [
                (sources.of_piece(piece, shards), part, row[HEAD + piece.start : HEAD + piece.stop]) for piece in pieces
            ]
            if self._leads:
                self._terms.append((sources.of_tail(shards), part, row[HEAD - TAIL : HEAD]))
        self._shard_bounds: ShardBounds = ()
        self._under_way = 0

    def begin(self, shard_bounds: ShardBounds) -> None:
        """Begin with a batch."""
        self._shard_bounds = shard_bounds

    def finish(self) -> None:
        """Bring the rows of all nodes here, when the workers of this one have left all of theirs.  Collective."""
        for source, part, target in self._terms:
            ordered_sum(*source.partial_sums(self._shard_bounds[part]), target)
        self._barrier.wait()
        if self._leads:
            self._exchange()
        self._barrier.wait()

    def _exchange(self) -> None:
        """Send this node's rows to the others, and take in theirs, row by row."""
        engine = self._progress_engine
        with engine.lock:
            self._under_way = sum(len(self._here) + len(rows) for _, rows in self._others)
            for rank, rows in self._others:
                for row in rows:
                    engine.receive(row, rank, _TAG, self._through)
                for row in self._here:
                    engine.send(row, rank, _TAG, self._through)
        engine.wait_until(lambda: not self._under_way)

    def _through(self) -> None:
        self._under_way -= 1

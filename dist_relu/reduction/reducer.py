"""The gradient of a batch becomes whole here, from what all workers' passes leave.

On one node nothing is done beforehand: whoever updates a chunk adds what lies in slots and arena on the way. Over
several, the workers of a node add what lies on it, bucket by bucket while backward still runs, and exchange the
buckets with the other nodes; what they update from are finished sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.kernels.copies import copy
from dist_relu.kernels.ordered_sum import ordered_sum
from dist_relu.kernels.tape import in_python
from dist_relu.reduction.gathering import Gathering
from dist_relu.reduction.internode import InternodeSum
from dist_relu.reduction.pieces import TAIL, Piece, join
from dist_relu.reduction.plan import ReductionPlan
from dist_relu.reduction.slots import Slots
from dist_relu.reduction.sources import ReductionMemory, ShardBounds, Source, Sources
from dist_relu.runtime.world import World


@final
class Reducer:
    """A reducer is one worker's part in adding the gradients of a batch.

    For every batch: `begin`; for each shard of this worker, in their order, a pass that leaves its gradient in the
    model's parameters, and `add`; then `finish`.

        reducer.begin(shard_bounds)
        for shard in plan.shards_of(world.rank):
            forward_backward(..., sums, reducer.on_grads_ready(shard))
            reducer.add(shard, sums)
        reducer.finish()

    sources: of the gradients of this worker's chunks, in the order of `ReductionPlan.chunks`; complete from `finish` on
    until somebody begins with the next batch.
    group_sources: the same of each group of shards, see `ReductionPlan.groups`; where sums are rounded, of all shards.
    row: where the gradient of the next shard goes, to be filled with 0 when it has no samples.
    total: (TAIL,), the summed loss of the batch, and how many of its samples were predicted right; from `finish` on.
    """

    row: Array
    total: Array
    sources: Sequence[Source]
    group_sources: Sequence[Sequence[Source]]

    def __init__(self, world: World, plan: ReductionPlan, memory: ReductionMemory) -> None:
        self._slots = slots = Slots(plan, memory, world.rank)
        self._last_shard = plan.shards_of(world.rank)[-1]
        self._barrier = world.node.barrier
        sources = Sources(plan, memory)
        everything = range(plan.shards)
        pieces = [join(chunk, plan.pieces) for chunk in plan.chunks[world.rank]]
        self._internode: InternodeSum | None = None
        self._gathering: Gathering | None = None
        if plan.stages:
            self._internode = InternodeSum(world, plan, memory, slots, sources)
            self.total = self._internode.tail
            self.sources = [sources.finished(piece) for piece in pieces]
            self.group_sources = [[source] for source in self.sources]
            return
        self.total = np.empty(TAIL, memory.slots.dtype)
        of_piece: Callable[[Piece, range], Source] = sources.of_piece
        tail = sources.of_tail(everything)
        if plan.gathers:
            self._gathering = Gathering(world, plan, memory, sources)
            of_piece, tail = sources.gathered, sources.gathered_tail(everything)
        self._tail = tail.partial_sums(())
        self.sources = [sources.rounded(of_piece, piece, everything) for piece in pieces]
        self.group_sources = [[source] for source in self.sources]
        if plan.group_level is not None and not plan.rounding:
            self.group_sources = [[of_piece(piece, shards) for shards in plan.groups] for piece in pieces]

    def begin(self, shard_bounds: ShardBounds) -> None:
        """Begin with a batch.  shard_bounds: its rows in each shard."""
        self._slots.begin()
        if self._internode:
            in_python(partial(self._internode.begin, shard_bounds))
        if self._gathering:
            in_python(partial(self._gathering.begin, shard_bounds))
        self.row = self._slots.push()

    def on_grads_ready(self, shard: int) -> Callable[[int], object] | None:
        """Return what to call in the pass over a shard, see `Sequential.backward_inside`; None: there is no need to."""
        internode = self._internode
        if not internode or shard != self._last_shard:
            return None
        return lambda first_param: in_python(partial(internode.send_ready, first_param))

    def add(self, shard: int, sums: Array) -> None:
        """Add what the pass over a shard has left, along the summation tree.  sums: (TAIL,), what its loss has said."""
        copy(sums, self.row[-TAIL:])
        if shard != self._last_shard:
            self._slots.carry()
            self.row = self._slots.push()
        elif not self._internode:  # which adds up stage by stage, since a part is under way
            self._slots.carry()

    def finish(self) -> None:
        """Wait until all is complete.  Collective."""
        if self._internode:
            in_python(self._internode.finish)
            return
        self._barrier.wait()
        if self._gathering:
            in_python(self._gathering.finish)
        ordered_sum(*self._tail, self.total)  # these few numbers every worker adds for itself

"""How training adds what its workers have, on its own: one array of each, without a model.

It is the product's own plan and `Reducer`, so benchmarks of sums time what training does, bucket by bucket.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from dist_relu.comm.shared_memory import Handles
from dist_relu.core.arrays import Array
from dist_relu.kernels.ordered_sum import ordered_sum
from dist_relu.nn import Constant, Param
from dist_relu.partition import bounds
from dist_relu.reduction.buckets import HEAD
from dist_relu.reduction.pieces import TAIL, join
from dist_relu.reduction.plan import ReductionPlan
from dist_relu.reduction.reducer import Reducer
from dist_relu.reduction.sources import ReductionMemory, Source, Sources
from dist_relu.runtime.replicated import ReplicatedArray, ReplicatedArrays
from dist_relu.runtime.world import World


@final
@dataclass(frozen=True, kw_only=True)
class SumRequest:
    """What workers need to add up arrays of (n,) float32, and how often they are to do it.

    slots: a row for each worker.  totals: with the sum at its end.
    """

    plan: ReductionPlan
    slots: Handles
    totals: Handles
    repeats: int


@final
class SumMemory:
    """The memory of sums of (n,) float32; must be kept as long as there are any."""

    def __init__(self, replicas: ReplicatedArrays, num_elements: int) -> None:
        workers = replicas.nodes[-1].stop
        self._plan = plan = ReductionPlan.of(
            [_param(num_elements)],
            (),
            nodes=replicas.nodes,
            shards=workers,
            batch_size=workers,
            num_vectors=1,
            itemsize=4,
        )
        self._slots: ReplicatedArray = replicas.zeros(plan.slots_shape, np.float32)
        self._totals = replicas.zeros((HEAD + num_elements,), np.float32)

    def request(self, repeats: int) -> SumRequest:
        """For a function that workers run."""
        return SumRequest(plan=self._plan, slots=self._slots.handles, totals=self._totals.handles, repeats=repeats)


@final
class Summation:
    """One worker's part in a sum.

    mine: (n,), what it adds; stays as it is.  total: (n,), shared by its node, the sum after the call.
    """

    def __init__(self, world: World, request: SumRequest) -> None:
        plan = request.plan
        slots, totals = world.node.attach(request.slots), world.node.attach(request.totals)
        memory = ReductionMemory(params=[_param(plan.num_params)], factors={}, slots=slots, totals=totals)
        self.mine: Array = slots[world.rank, :-TAIL]
        self.total: Array = totals[HEAD:]
        self._reducer = Reducer(world, plan, memory)
        self._shard_bounds = bounds(plan.shards, plan.shards)
        self._shard, self._nothing = world.rank, np.zeros(TAIL)
        self._barrier = world.node.barrier
        self._sums_last = not plan.stages  # on one node, where training updates in the same pass
        self._part: tuple[Source, Array] | None = None
        if self._sums_last and (chunks := plan.chunks[world.rank]):
            # Training plays the calls of all its pieces without Python between them; one call takes as long.
            piece = join(range(chunks[0].start, chunks[-1].stop), plan.pieces)
            source = Sources(plan, memory).of_piece(piece, range(plan.shards))
            self._part = source, self.total[piece.start : piece.stop]

    def __call__(self) -> None:
        """Add; collective.  All must meet before the next call."""
        self._reducer.begin(self._shard_bounds)
        self._reducer.add(self._shard, self._nothing)
        self._reducer.finish()
        if self._sums_last:
            if self._part:
                source, part = self._part
                ordered_sum(*source.partial_sums(self._shard_bounds), part)
            self._barrier.wait()


def _param(size: int) -> Param:
    return Param("array", (size,), Constant(), 1, 1)

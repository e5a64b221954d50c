"""The coordinator makes the memory of a run of replicas on every node before it, and reads it between parts.

P parameters.  R replicas of V vectors each.  E vectors of the outer rule.
"""

from __future__ import annotations

from typing import final

import numpy as np

from dist_relu.comm.shared_memory import Handles
from dist_relu.core.arrays import Array
from dist_relu.data.augment import ImageShape
from dist_relu.engine.memory import Snapshot
from dist_relu.engine.plan import StepPlan
from dist_relu.engine.replica_steps import ReplicaRequest
from dist_relu.engine.replicas import ReplicaMemory, mean_of, plan_of_replica
from dist_relu.engine.watch.recorder import WatchRequest
from dist_relu.nn import Sequential
from dist_relu.nn.passes import measure
from dist_relu.partition import bounds
from dist_relu.reduction.plan import ReductionPlan
from dist_relu.runtime.placed import PlacedDataset
from dist_relu.runtime.replicated import ReplicatedArray, ReplicatedArrays


@final
class ReplicaVectors:
    """The vectors of all replicas lie on the nodes that have these, and the outer rule's on all.

    half: that which holds where the run stands; the next part writes the other one.
    """

    half = 0

    def __init__(self, replicas: ReplicatedArrays, model: Sequential, plan: StepPlan, begin: Snapshot) -> None:
        """begin: where the run stands.  Raises MemoryError where there is no room for so many replicas."""
        assert plan.averaging
        self._plan, self._number, self._round = plan, plan.averaging.replicas, plan.averaging.steps
        self._num_rows, self._num_outer = self._number * plan.num_vectors, plan.num_outer
        of_ranks = bounds(self._number, replicas.nodes[-1].stop)
        rows = [range(first * plan.num_vectors, stop * plan.num_vectors) for first, stop in of_ranks]
        self._rows = replicas.rows_by_node(rows)
        try:
            self.vectors = replicas.zeros((2 * self._num_rows, model.num_params), model.dtype)
            self.outer = replicas.zeros((2 * self._num_outer, model.num_params), model.dtype)
        except MemoryError as error:
            raise MemoryError(
                f"{error} Each of {self._number} replicas has {plan.num_vectors} vectors of {model.num_params:,} "
                "numbers, twice. Pass fewer replicas."
            ) from None
        first_outer = begin.step // self._round % 2 * self._num_outer
        self.outer.array[first_outer : first_outer + self._num_outer] = begin.vectors[1 : 1 + self._num_outer]
        self.vectors.array[: self._num_rows] = begin.vectors[1 + self._num_outer :][: self._num_rows]
        self.outer.broadcast()
        self.vectors.broadcast(self._rows)

    def copy(self, step: int) -> Array:
        """Copy all vectors of the run, which stands before this step; see `StepPlan.vector_names`."""
        vectors = self._fetch()
        first_outer = step // self._round % 2 * self._num_outer
        outer = self.outer.gather({0: range(first_outer, first_outer + self._num_outer)})
        parts = [self._mean_at(vectors, step, 0), outer[first_outer : first_outer + self._num_outer]]
        parts.append(vectors.reshape(self._num_rows, -1))
        if self._plan.options.num_averages:
            parts.append(mean_of(list(vectors[:, -1]))[None])
        return np.concatenate([parts[0][None], *parts[1:]])

    def mean(self, step: int) -> Array:
        """The mean of the parameters of all replicas (P,)."""
        return self._mean_at(self._fetch(), step, 0)

    def _mean_at(self, vectors: Array, step: int, place: int) -> Array:
        """Where a round ends, all have the same parameters, and to add them up would round them."""
        mean: Array = vectors[0, place] if step % self._round == 0 else mean_of(list(vectors[:, place]))
        return mean

    def _fetch(self) -> Array:
        """The vectors (R, V, P) of where the run stands."""
        first = self.half * self._num_rows
        wanted = {node: range(first + rows.start, first + rows.stop) for node, rows in self._rows.items()}
        vectors = self.vectors.gather(wanted)[first : first + self._num_rows]
        return vectors.reshape(self._number, self._plan.num_vectors, -1)


def prepare_replicas(
    replicas: ReplicatedArrays,
    model: Sequential,
    placed: PlacedDataset,
    plan: StepPlan,
    vectors: ReplicaVectors,
    *,
    weights: Array,
    chances: Array,
    image_shape: ImageShape | None,
    watch: WatchRequest | None,
) -> tuple[ReplicaMemory[ReplicatedArray], ReplicaRequest]:
    """Make all memory of a run, and tell workers how to take steps in it; it must be kept as long as they do."""
    assert plan.averaging
    layout = measure(model, plan.loss, placed.y.array[:1])
    one = plan_of_replica(plan, 0)
    of_replica = ReductionPlan.of(
        model.params,
        layout.products,
        nodes=[range(1)],
        shards=one.shards,
        batch_size=one.batch_size,
        num_vectors=one.num_vectors,
        itemsize=model.dtype.itemsize,
        by_param=one.cuts_by_param or watch is not None,
    )
    averages = ReductionPlan.of(
        model.params,
        (),
        nodes=replicas.nodes,
        shards=plan.averaging.replicas,
        batch_size=1,
        num_vectors=1,
        itemsize=model.dtype.itemsize,
        bucket_bytes=plan.bucket_bytes,
    )
    memory = ReplicaMemory(
        y=placed.y,
        weights=replicas.copy_of(weights),
        chances=replicas.copy_of(chances),
        vectors=vectors.vectors,
        outer=vectors.outer,
        slots=replicas.zeros(averages.slots_shape, model.dtype),
        totals=replicas.zeros(averages.totals_shape, model.dtype),
    )
    memory.weights.broadcast()
    memory.chances.broadcast()
    request = ReplicaRequest(
        model=model.blueprint(),
        input_shape=model.input_shape,
        image_shape=image_shape,
        plan=plan,
        layout=layout,
        of_replica=of_replica,
        averages=averages,
        samples=placed.x.handle,
        memory=memory.map(_handles),
        watch=watch,
    )
    return memory, request


def _handles(array: ReplicatedArray) -> Handles:
    return array.handles

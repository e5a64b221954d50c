"""Replicas of a model share a run: each has a group of the shards of every batch, and is trained as if it were alone.

What one of them does in a step is a step of the usual kind, with its own shards, parameters and states. Between two
averages nobody waits for another, so a worker lets its replicas take their steps one after the other, as many as it may
at once. Replica r of R has the shards from r·S/R on, whoever computes it; so bits depend on R and not on the workers.

P parameters.  S shards.  V vectors of a replica: its parameters, its optimiser's states, and what else there is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Generic, TypeVar

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.engine.batches import microbatches
from dist_relu.engine.plan import StepPlan
from dist_relu.errors import PartitionError
from dist_relu.partition import Fold, SummationTree, bounds

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, kw_only=True)
class ReplicaMemory(Generic[T]):
    """This memory is shared by the workers of a node: as the coordinator's arrays, as handles, or as a worker's arrays.

    There are two of each vector. A part of a run reads the ones of one half and writes the others.
    y, weights, chances: see `Memory`.
    vectors: (2·R·V, P), those of a half one after the other, replica by replica; a node has those of its own.
    outer: (2·E, P), the outer parameters and the states of the outer rule, if there is one; alike on all nodes.
    slots, totals: of the shapes that the `ReductionPlan` of the averages has.
    """

    y: T
    weights: T
    chances: T
    vectors: T
    outer: T
    slots: T
    totals: T

    def map(self, function: Callable[[T], U]) -> ReplicaMemory[U]:
        """Return the same with function(array) in place of each."""
        return ReplicaMemory(**{field.name: function(getattr(self, field.name)) for field in fields(self)})


def check_replicas(plan: StepPlan, workers: int) -> None:
    """Raise `PartitionError` unless replicas have equally many shards and every worker has one of them."""
    if plan.averaging is None:
        return
    number = plan.averaging.replicas
    if plan.shards % number:
        raise PartitionError(
            f"{plan.shards} shard{'s' * (plan.shards > 1)} can't be shared equally by {number} replicas. "
            f"Pass a multiple of {number} as shards."
        )
    if workers > number:
        leaving = "1 replica leaves" if number == 1 else f"{number} replicas leave"
        raise PartitionError(
            f"{leaving} {workers - number} of {workers} workers without work, as a replica is computed by one. "
            f"Pass workers <= {number} or replicas >= {workers}."
        )


def check_options(plan: StepPlan, *, verifies: bool, traces: bool) -> None:
    """Raise ValueError for what replicas can't do."""
    if plan.averaging is None:
        return
    if plan.options.skips:
        raise ValueError(
            f'on_nan="skip" goes with one model, but of the replicas of {plan.averaging} some would skip a step that '
            "others take. Leave it away, or clip gradients by clip_norm."
        )
    if plan.options.compression:
        raise ValueError(
            f"compression={plan.options.compression} is of gradients, and the replicas of {plan.averaging} exchange "
            "none. Leave one of both away."
        )
    if traces:
        raise ValueError(f"trace is of steps that all workers take together, and those of {plan.averaging} don't.")
    if verifies:
        raise ValueError(
            f"verify_every compares what several workers make of a shard, but a replica of {plan.averaging} lies with "
            "one worker. Leave it away."
        )


def plan_of_replica(plan: StepPlan, number: int) -> StepPlan:
    """Plan the steps that a replica takes alone."""
    shards = shards_of_replica(plan, number)
    first, stop = rows_of(shards, plan.batch_size, plan.shards)
    return replace(plan, averaging=None, batch_size=stop - first, shards=len(shards), first_shard=shards.start)


def shards_of_replica(plan: StepPlan, number: int) -> range:
    """Return the shards of every batch that a replica has."""
    assert plan.averaging
    each = plan.shards // plan.averaging.replicas
    return range(number * each, (number + 1) * each)


def rows_of(shards: range, batch_size: int, num_shards: int) -> tuple[int, int]:
    """Return which rows of a batch some neighbouring shards have."""
    cut = bounds(batch_size, num_shards)
    return cut[shards.start][0], cut[shards.stop - 1][1]


def samples_of_replica(samples: Array, plan: StepPlan, number: int) -> Array:
    """Return those samples of a step that a replica has, which may be none."""
    shards = shards_of_replica(plan, number)
    batches = [batch.samples for batch in microbatches(samples, plan, 0)]
    return np.concatenate([batch[slice(*rows_of(shards, len(batch), plan.shards))] for batch in batches])


def mean_of(vectors: Sequence[Array]) -> Array:
    """Return the mean of the replicas' vectors, added along the summation tree over the replicas."""
    tree = SummationTree(len(vectors))
    carries, _ = tree.fold(tree.leaves(0, len(vectors)))
    fold: Fold[Array] = Fold(carries, np.add)
    for vector in vectors:
        fold.push(vector)
        fold.carry()
    (total,) = fold.sums()
    mean: Array = total / total.dtype.type(len(vectors))
    return mean

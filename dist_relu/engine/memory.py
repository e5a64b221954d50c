"""The coordinator makes the memory of a run on every node before it, and reads it between steps and in the end.

P parameters.  V vectors: the parameters, the states of the optimiser and of a compression, the gradient of the step
before where gradients are stale, and the average of the parameters if there is one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from math import nan
from typing import Generic, TypeVar, final

import numpy as np

from dist_relu.comm.shared_memory import Handles
from dist_relu.core.arrays import Array
from dist_relu.data.augment import ImageShape
from dist_relu.engine.norms import NUM_SQUARES
from dist_relu.engine.plan import StepPlan
from dist_relu.engine.watch.recorder import WatchRequest
from dist_relu.engine.weighting import DRAWN_ONCE
from dist_relu.errors import BackendError
from dist_relu.nn import Sequential
from dist_relu.nn.losses.loss import UNWEIGHTED
from dist_relu.nn.passes import Layout, measure
from dist_relu.reduction.batch_sums import batch_sums_shape
from dist_relu.reduction.plan import ReductionPlan
from dist_relu.runtime.placed import PlacedDataset
from dist_relu.runtime.placed_samples import SamplesHandle
from dist_relu.runtime.replicated import ReplicatedArray, ReplicatedArrays

T = TypeVar("T")
U = TypeVar("U")

STEP_RECORD = np.dtype([("loss", np.float64), ("num_correct", np.int64), ("num_samples", np.int64), ("seconds", float)])
"""What a step has come to: the mean loss of its samples, how many were predicted right, and its duration.

A step that was skipped has a loss of NaN, and nothing was right."""


def means_of(records: Array) -> tuple[float, float]:
    """The mean loss of the samples of steps, and the share of them that was right; NaN where all were skipped."""
    taken = records[np.isfinite(records["loss"])]
    if not len(taken):
        return nan, nan
    counts = taken["num_samples"]
    num_samples = counts.sum()
    return float((taken["loss"] * counts).sum() / num_samples), float(taken["num_correct"].sum() / num_samples)


@dataclass(frozen=True, kw_only=True, eq=False)
class Snapshot:
    """This is all that a run has come to after so many steps.  vectors: (V, P)."""

    step: int
    vectors: Array

    @classmethod
    def initial(cls, values: Array, plan: StepPlan) -> Snapshot:
        """Begin with these parameters, states and a gradient of zero, and an average of the parameters alone."""
        names = plan.vector_names
        vectors = np.zeros((len(names), len(values)), values.dtype)
        vectors[[name.endswith(("parameters", "average")) for name in names]] = values
        return cls(step=0, vectors=vectors)


@dataclass(frozen=True, kw_only=True)
class Memory(Generic[T]):
    """This memory is shared by the workers of a node: as the coordinator's arrays, as handles, or as a worker's arrays.

    y: the targets, (samples, ...).  weights, chances: (samples,) or (0,), see `dist_relu.engine.weighting`.
    generations, slots, totals: of the shapes that the `ReductionPlan` has.
    group_sums: (rows, P) that a compression works in, and room as behind generations.
    squares: (pieces, NUM_SQUARES).  sums: see `batch_sums_shape`.  arena: bytes.  verdicts: (workers,), where steps may
    be skipped, whether what each worker has made of its chunks is finite.  completed: (workers,) int64, how many steps
    of the run each worker has seen to be complete.  The vectors after step number n are generation n % 2.
    records: (R,) of `STEP_RECORD`; that of step n is number n % R, on the first node.
    """

    y: T
    weights: T
    chances: T
    generations: T
    slots: T
    totals: T
    group_sums: T
    squares: T
    sums: T
    arena: T
    verdicts: T
    completed: T
    records: T

    def map(self, function: Callable[[T], U]) -> Memory[U]:
        """Return the same with function(array) in place of each."""
        return Memory(**{field.name: function(getattr(self, field.name)) for field in fields(self)})


@dataclass(frozen=True, kw_only=True)
class StepRequest:
    """This is everything that a worker must know to take steps.

    model: not built yet.  image_shape: of samples that are augmented.  layout: of the model's passes.
    verify_every: see `verified_shard`; None: never.
    """

    model: Sequential
    input_shape: tuple[int, ...]
    image_shape: ImageShape | None
    plan: StepPlan
    layout: Layout
    reduction: ReductionPlan
    samples: SamplesHandle
    memory: Memory[Handles]
    watch: WatchRequest | None
    verify_every: int | None


@final
class StepMemory:
    """The steps of a run work in this memory, on every node; it begins where the run stands.

    records: those of the last steps, the latest at the end.  num_records: how many are kept, at least so many.
    """

    def __init__(
        self,
        replicas: ReplicatedArrays,
        model: Sequential,
        placed: PlacedDataset,
        plan: StepPlan,
        begin: Snapshot,
        *,
        weights: Array = UNWEIGHTED,
        chances: Array = DRAWN_ONCE,
        records: Array | None = None,
        num_records: int = 1,
        is_watched: bool = False,
    ) -> None:
        self._model, self.plan, self._begin, self._samples = model, plan, begin.step, placed.x
        compression, feedback = plan.options.compression, plan.options.feedback
        self._layout = layout = measure(model, plan.loss, placed.y.array[:1])
        self._reduction = reduction = ReductionPlan.of(
            model.params,
            layout.products,
            nodes=replicas.nodes,
            shards=plan.shards,
            batch_size=plan.batch_size,
            num_vectors=plan.num_vectors,
            itemsize=model.dtype.itemsize,
            by_param=plan.cuts_by_param or is_watched,
            bucket_bytes=plan.bucket_bytes,
            groups=compression.num_groups(plan.shards) if compression else None,
            rounding=plan.options.rounding,
        )
        self._memory = Memory(
            y=placed.y,
            weights=replicas.copy_of(weights),
            chances=replicas.copy_of(chances),
            generations=replicas.zeros(reduction.generations_shape, model.dtype),
            slots=replicas.zeros(reduction.slots_shape, model.dtype),
            totals=replicas.zeros(reduction.totals_shape, model.dtype),
            group_sums=replicas.zeros(
                (feedback.num_rows(plan.shards) if feedback else 0, reduction.generations_shape[2]), model.dtype
            ),
            squares=replicas.zeros((len(reduction.pieces), NUM_SQUARES), np.float64),
            sums=replicas.zeros(batch_sums_shape(plan.shards, layout.sums), np.float64),
            arena=replicas.zeros((layout.size_bytes(plan.batch_size),), np.uint8),
            verdicts=replicas.zeros((reduction.workers if plan.options.skips else 0,), np.bool),
            completed=replicas.zeros((reduction.workers,), np.int64),
            records=replicas.zeros((num_records,), STEP_RECORD),
        )
        self._memory.weights.broadcast()
        self._memory.chances.broadcast()
        everywhere = range(replicas.num_nodes)
        generation = begin.step % 2
        self._memory.generations.array[generation, :, : reduction.num_params] = begin.vectors
        self._memory.generations.broadcast(dict.fromkeys(everywhere, range(generation, generation + 1)))
        self._memory.completed.array[:] = begin.step
        self._memory.completed.broadcast()
        if records is not None:
            self._memory.records.array[np.arange(begin.step - len(records), begin.step) % num_records] = records
            self._memory.records.broadcast()

    def request(
        self,
        watch: WatchRequest | None = None,
        image_shape: ImageShape | None = None,
        verify_every: int | None = None,
    ) -> StepRequest:
        """Tell workers how to take steps in this memory, which must be kept as long as they do.

        Raises ValueError where a shard can't be verified, since no pass over it stands alone.
        """
        if verify_every is not None and self._layout.sums:
            raise ValueError(
                f"verify_every={verify_every}, but layers of the model take sums over the whole batch, so that no "
                'shard can be computed by itself. Leave it away, or use BatchNorm(scope="shard").'
            )
        return StepRequest(
            model=self._model.blueprint(),
            input_shape=self._model.input_shape,
            image_shape=image_shape,
            plan=self.plan,
            layout=self._layout,
            reduction=self._reduction,
            samples=self._samples.handle,
            memory=self._memory.map(_handles),
            watch=watch,
            verify_every=verify_every,
        )

    def put(self, values: Array) -> None:
        """Let these be the parameters (P,) after the last complete step; no worker may be in one."""
        self._memory.generations.put((self.num_completed() % 2, 0, slice(len(values))), values)

    def num_completed(self) -> int:
        """Count the steps that are known to be complete, on the node whose vectors `snapshot` gives."""
        completed = self._memory.completed
        return int(completed.gather({0: range(len(completed.array))}).max())

    def records(self, first: int, stop: int) -> Array:
        """Fetch what the steps from number `first` on have come to, of which all must be in memory still."""
        records = self._memory.records
        return records.gather({0: range(len(records.array))})[np.arange(first, stop) % len(records.array)]

    def snapshot(self) -> Snapshot:
        """Copy all vectors after the last complete step.

        Workers may still be in the next step, which they can't complete but for its very end: the call was given up,
        and a step that follows stops at its first barrier, before it writes.
        """
        step = self.num_completed()
        vectors = self._vectors_after(step).copy()
        while (now := self.num_completed()) > step:
            step, vectors = now, self._vectors_after(now).copy()
        return Snapshot(step=step, vectors=vectors)

    def finite_snapshot(self) -> Snapshot | None:
        """Copy all vectors after the last complete step, or that before it where the last led to no numbers.

        None when these are no numbers either, or out of reach.
        """
        try:
            last = self.snapshot()
            if not np.isfinite(last.vectors[0]).all() and last.step > self._begin:
                last = Snapshot(step=last.step - 1, vectors=self._vectors_after(last.step - 1).copy())
        except BackendError:
            return None
        return last if np.isfinite(last.vectors[0]).all() else None

    def values(self) -> Array:
        """The parameters (P,) after the last complete step, and as long as no other is taken."""
        values: Array = self._vectors_after(self.num_completed())[0]
        return values

    def _vectors_after(self, step: int) -> Array:
        generation = step % 2
        vectors: Array = self._memory.generations.gather({0: range(generation, generation + 1)})[generation]
        return vectors[:, : self._reduction.num_params]  # all nodes have the same


def _handles(array: ReplicatedArray) -> Handles:
    return array.handles

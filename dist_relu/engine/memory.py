"""The coordinator makes the memory of a run on every node before it, and reads it when the run is over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Generic, TypeVar, final

import numpy as np

from dist_relu.comm.shared_memory import Handles
from dist_relu.core.arrays import Array
from dist_relu.data.augment import ImageShape
from dist_relu.engine.norms import NUM_SQUARES
from dist_relu.engine.plan import StepPlan
from dist_relu.engine.watch.recorder import WatchRequest
from dist_relu.errors import BackendError
from dist_relu.nn import Sequential
from dist_relu.nn.passes import Layout, measure
from dist_relu.reduction.plan import ReductionPlan
from dist_relu.runtime.placed import PlacedDataset
from dist_relu.runtime.replicated import ReplicatedArray, ReplicatedArrays

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, kw_only=True)
class Memory(Generic[T]):
    """This memory is shared by the workers of a node: as the coordinator's arrays, as handles, or as a worker's arrays.

    x, y: the data set, (samples, ...).  generations, slots, totals: of the shapes that the `ReductionPlan` has.
    squares: (pieces, NUM_SQUARES).  arena: bytes.  completed: (workers,) int64, how many steps each worker has seen to
    be complete.
    """

    x: T
    y: T
    generations: T
    slots: T
    totals: T
    squares: T
    arena: T
    completed: T

    def map(self, function: Callable[[T], U]) -> Memory[U]:
        """Return the same with function(array) in place of each."""
        return Memory(**{field.name: function(getattr(self, field.name)) for field in fields(self)})


@dataclass(frozen=True, kw_only=True)
class StepRequest:
    """This is everything that a worker must know to take steps.

    model: not built yet.  image_shape: of samples that are augmented.  layout: of the model's passes.
    """

    model: Sequential
    input_shape: tuple[int, ...]
    image_shape: ImageShape | None
    plan: StepPlan
    layout: Layout
    reduction: ReductionPlan
    memory: Memory[Handles]
    watch: WatchRequest | None


@final
class StepMemory:
    """The steps of a run work in this memory, on every node; it begins with the parameters of `model`."""

    def __init__(
        self,
        replicas: ReplicatedArrays,
        model: Sequential,
        placed: PlacedDataset,
        plan: StepPlan,
        *,
        is_watched: bool = False,
    ) -> None:
        self._model, self.plan = model, plan
        self._layout = layout = measure(model, plan.loss, placed.y.array[:1])
        self._reduction = reduction = ReductionPlan.of(
            model.params,
            layout.products,
            nodes=replicas.nodes,
            shards=plan.shards,
            batch_size=plan.batch_size,
            num_vectors=plan.num_vectors,
            itemsize=model.dtype.itemsize,
            by_param=plan.measures_params or is_watched,
        )
        self._memory = Memory(
            x=placed.x,
            y=placed.y,
            generations=replicas.zeros(reduction.generations_shape, model.dtype),
            slots=replicas.zeros(reduction.slots_shape, model.dtype),
            totals=replicas.zeros(reduction.totals_shape, model.dtype),
            squares=replicas.zeros((len(reduction.pieces), NUM_SQUARES), np.float64),
            arena=replicas.zeros((layout.size_bytes(plan.batch_size),), np.uint8),
            completed=replicas.zeros((reduction.workers,), np.int64),
        )
        generations = self._memory.generations
        generations.array[0, 0] = model.values
        if plan.options.num_averages:
            generations.array[0, -1] = model.values
        generations.broadcast(dict.fromkeys(range(replicas.num_nodes), range(1)))

    def request(self, watch: WatchRequest | None = None, image_shape: ImageShape | None = None) -> StepRequest:
        """Tell workers how to take steps in this memory, which must be kept as long as they do."""
        return StepRequest(
            model=self._model.blueprint(),
            input_shape=self._model.input_shape,
            image_shape=image_shape,
            plan=self.plan,
            layout=self._layout,
            reduction=self._reduction,
            memory=self._memory.map(_handles),
            watch=watch,
        )

    def vectors(self) -> Array:
        """Fetch both generations, (2, 1 + optimiser states + averages, P)."""
        return self._memory.generations.gather({0: range(2)})  # they are the same on all nodes

    def num_completed(self) -> int:
        """Count the steps that are known to be complete, on the node whose vectors `vectors` gives."""
        completed = self._memory.completed
        return int(completed.gather({0: range(len(completed.array))}).max())


@dataclass(frozen=True, kw_only=True)
class Trained:
    """These parameters were left by a run.  values, average: (P,).

    overflowed: the last step led to parameters that are no numbers; then those before it are given.
    """

    values: Array
    average: Array | None
    overflowed: bool


def trained(memory: StepMemory, generation: int) -> Trained:
    """Read what is left of a run.  generation: the one that holds the final parameters."""
    vectors = memory.vectors()
    overflowed = not np.isfinite(vectors[generation, 0]).all()
    return _trained(memory, vectors[generation ^ overflowed], overflowed=overflowed)


def stopped(memory: StepMemory) -> Trained | None:
    """Read what a run has left that ended with an exception: the parameters after its last complete step.

    None when these are no numbers, or out of reach.  Workers may still be in the next step, which they can't complete
    but for its very end: the call was given up, and a step that follows stops at its first barrier, before it writes.
    """
    try:
        num_steps, vectors = memory.num_completed(), memory.vectors().copy()
        while (now := memory.num_completed()) > num_steps:
            num_steps, vectors = now, memory.vectors().copy()
    except BackendError:
        return None
    last = vectors[num_steps % 2]
    return _trained(memory, last, overflowed=False) if np.isfinite(last[0]).all() else None


def _trained(memory: StepMemory, generation: Array, *, overflowed: bool) -> Trained:
    average = generation[-1] if memory.plan.options.num_averages else None
    return Trained(values=generation[0], average=average, overflowed=overflowed)


def _handles(array: ReplicatedArray) -> Handles:
    return array.handles

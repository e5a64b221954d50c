"""The coordinator's side of training: the memory of a run, made before it on every node and read when it is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_int
from dist_relu.data.augment import ImageShape
from dist_relu.engine.step import Memory, StepPlan, StepRequest
from dist_relu.engine.update import NUM_SQUARES, cut_for
from dist_relu.engine.watch.recorder import WatchRequest
from dist_relu.errors import BackendError
from dist_relu.kernels.ordered_sum import ordered_sum
from dist_relu.nn import Sequential
from dist_relu.nn.passes import measure
from dist_relu.optim import ElementwiseOptimizer
from dist_relu.partition import PartialSums
from dist_relu.reduction.reducer import sums_size
from dist_relu.reduction.slots import slots_shape
from dist_relu.runtime.placed import PlacedDataset
from dist_relu.runtime.replicated import ReplicatedArrays


@final
class StepMemory:
    """What the steps of a run work in, on every node; begins with the parameters of `model`."""

    def __init__(
        self,
        replicas: ReplicatedArrays,
        model: Sequential,
        placed: PlacedDataset,
        plan: StepPlan,
        workers: int,
        *,
        is_watched: bool = False,
    ) -> None:
        self._model, self._placed, self.plan = model, placed, plan
        self._layout = layout = measure(model, plan.loss, placed.y.array[:1])
        rule = plan.optimizer
        num_states = check_int(f"{type(rule).__name__}.num_states", rule.num_states, 0)
        num_vectors = 1 + num_states + plan.options.num_averages
        self._generations = generations = replicas.zeros((2, num_vectors, model.num_params), model.dtype)
        generations.array[0, 0] = model.values
        if plan.options.num_averages:
            generations.array[0, -1] = model.values
        generations.broadcast(dict.fromkeys(range(replicas.num_nodes), range(1)))
        self._slots = replicas.zeros(slots_shape(model, layout, plan.shards, workers), model.dtype)
        self._sums = replicas.zeros((sums_size(model.num_params, replicas.num_nodes),), model.dtype)
        pieces = cut_for(plan.optimizer, plan.options, model, layout, is_watched=is_watched)
        self._squares = replicas.zeros((len(pieces), NUM_SQUARES), np.float64)
        self._arena = replicas.zeros((layout.size_bytes(plan.batch_size),), np.uint8)
        self._completed = replicas.zeros((workers,), np.int64)

    def request(self, watch: WatchRequest | None = None, image_shape: ImageShape | None = None) -> StepRequest:
        """What workers need to take steps in this memory, which must be kept as long as they do."""
        memory = Memory(
            self._placed.x.handles,
            self._placed.y.handles,
            self._generations.handles,
            self._slots.handles,
            self._sums.handles,
            self._squares.handles,
            self._arena.handles,
            self._completed.handles,
        )
        blueprint = self._model.blueprint()
        return StepRequest(blueprint, self._model.input_shape, image_shape, self.plan, self._layout, memory, watch)

    def vectors(self) -> Array:
        """Both generations, (2, 1 + optimiser states + averages, P)."""
        return self._generations.gather({0: range(2)})  # they are the same on all nodes

    def num_completed(self) -> int:
        """The number of steps that are known to be complete, on the node whose vectors `vectors` gives."""
        return int(self._completed.gather({0: range(len(self._completed.array))}).max())


@dataclass(frozen=True)
class Trained:
    """The parameters that a run left.  values, average: (P,).

    overflowed: the last step led to parameters that are no numbers; then those before it are given.
    """

    values: Array
    average: Array | None
    overflowed: bool


def trained(memory: StepMemory, generation: int) -> Trained:
    """Read what is left of a run.  generation: the one that holds the final parameters."""
    vectors = memory.vectors()
    overflowed = not np.isfinite(vectors[generation, 0]).all()
    last = vectors[generation ^ overflowed]
    return Trained(last[0], last[-1] if memory.plan.options.num_averages else None, overflowed)


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
    if not np.isfinite(last[0]).all():
        return None
    return Trained(last[0], last[-1] if memory.plan.options.num_averages else None, overflowed=False)


@final
class LeaveGradient(ElementwiseOptimizer):
    """Writes the gradient where the new parameters would go."""

    @property
    def num_states(self) -> int:
        return 0

    def hyper(self, step: int, epoch: float) -> list[float]:
        return []

    def update(self, gradient: PartialSums, old: Sequence[Array], new: Sequence[Array], hyper: Array) -> None:
        ordered_sum(*gradient, new[0])

"""A training step, as every worker takes it: pass over my shards, meet, sum and update my chunks, meet.

A step reads one generation of parameters and optimiser state and writes the other; the barrier at its end is the
switch. P parameters, N samples in a batch, S shards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import final

import numpy as np

from dist_relu.comm.shared_memory import Handles
from dist_relu.core.arrays import Array
from dist_relu.data import Augment
from dist_relu.data.augment import ImageShape
from dist_relu.engine.update import NUM_SQUARES, StepOptions, WatchedNorms, cut_for, update_of
from dist_relu.engine.watch.recorder import Watcher, WatchRequest
from dist_relu.nn import Loss, MixedTargets, Sequential
from dist_relu.nn.passes import Layout, ShardPass, forward_backward
from dist_relu.optim import Optimizer
from dist_relu.partition import Purpose, bounds, generator
from dist_relu.reduction.chunks import Sources, costs_of, empty_chunks
from dist_relu.reduction.reducer import Parts, sums_of
from dist_relu.reduction.slots import TAIL, Slots
from dist_relu.runtime.world import World


@dataclass(frozen=True)
class Memory:
    """What the workers of a node share while they train.

    x, y: the data set, (samples, ...).  generations: (2, 1 + optimiser states + averages, P).
    slots: (rows, slot length).  sums: (`sums_size`,).  squares: (pieces, NUM_SQUARES).  arena: bytes.
    completed: (workers,) int64, how many steps each worker has seen to be complete.
    """

    x: Handles
    y: Handles
    generations: Handles
    slots: Handles
    sums: Handles
    squares: Handles
    arena: Handles
    completed: Handles


@dataclass(frozen=True)
class StepPlan:
    """What becomes of a batch of `batch_size` samples, which is cut into `shards`."""

    loss: Loss
    optimizer: Optimizer
    options: StepOptions
    batch_size: int
    shards: int
    seed: int
    augment: Augment | None = None


@dataclass(frozen=True)
class StepRequest:
    """Everything a worker must know to take steps."""

    model: Sequential
    input_shape: tuple[int, ...]
    image_shape: ImageShape | None
    plan: StepPlan
    layout: Layout
    memory: Memory
    watch: WatchRequest | None


@final
class TrainingStep:
    """One worker's part of a training step.

    x: the samples.  model: computes with the parameters of `generation`, those after the last step.
    notes, norms: of the last step, if it was watched and this is worker 0, see `row_dtype` and `WatchedNorms`.
    """

    notes: Array | None = None
    norms: Array

    def __init__(self, world: World, request: StepRequest) -> None:
        self._world = world
        self._plan = plan = request.plan
        self._image_shape = request.image_shape
        self.model = model = request.model
        self._dtype = model.dtype
        model.build(request.input_shape)
        memory, attach = request.memory, world.node.attach
        self.x, self._y = attach(memory.x), attach(memory.y)
        self.generation = 0
        self._completed = attach(memory.completed)
        generations = attach(memory.generations)
        model.bind(generations[0, 0])
        self._values = [model.views(generation[0]) for generation in generations]
        self._places = [param.places() for param in model.params]
        arrays = request.layout.arrays(attach(memory.arena), plan.batch_size)
        self._run = ShardPass(request.layout, arrays, model.params, plan.seed)
        self._slots = slots = Slots(model, request.layout, attach(memory.slots), plan.shards, world.rank, world.size)
        is_watched = request.watch is not None
        pieces = cut_for(plan.optimizer, plan.options, model, request.layout, is_watched=is_watched)
        sources = Sources(model, request.layout, pieces, arrays, slots, plan.shards)
        costs = costs_of(pieces, len(slots.rows), generations.shape[1], plan.batch_size, self._dtype.itemsize)
        parts = Parts(model, pieces, costs, sources, slots, plan.shards, generations)
        self._sums = sums_of(world, parts, attach(memory.sums))
        squares = attach(memory.squares)
        self._norms = WatchedNorms(pieces, squares)
        self._updates = {
            watched: update_of(
                plan.optimizer,
                plan.options,
                self._sums.chunks,
                pieces,
                squares,
                world.node.barrier,
                is_watched=watched,
            )
            for watched in {False, is_watched}
        }
        self._watcher = Watcher(world, request.watch, model.passes, self._dtype) if request.watch else None

    def load_kernels(self) -> None:
        """Compile or load whatever a step needs, so that no step has to; collective."""
        for is_watched in {False, self._watcher is not None}:
            self._slots.begin()
            self._pass_over(np.zeros(1, np.int64), 0, self._slots.shards[0], 0, 1, group_size=1, is_watched=is_watched)
        self._slots.carry()
        plan = self._plan
        num_vectors = 1 + plan.optimizer.num_states + plan.options.num_averages
        trial_pieces, trial_chunks = empty_chunks(num_vectors, self._dtype)
        squares = np.zeros((len(trial_pieces), NUM_SQUARES))
        hyper = np.array(plan.optimizer.hyper(0, 0.0), self._dtype)
        for is_watched in sorted(self._updates):
            trial = update_of(
                plan.optimizer,
                plan.options,
                trial_chunks,
                trial_pieces,
                squares,
                self._world.node.barrier,
                is_watched=is_watched,
            )
            for _ in range(min(plan.options.accumulate, 2)):
                trial.gather([])
            trial.step(hyper, 0)
        self._world.node.barrier.wait()

    def take(self, samples: Array, step: int, epoch: float) -> tuple[float, int, bool]:
        """Take the step from one generation to the other; returns loss, num_correct and whether the loss is no number.

        samples: the numbers of all samples of the step, those of several batches when gradients are accumulated.
        """
        plan, barrier = self._plan, self._world.node.barrier
        loss, num_correct = 0.0, 0
        watcher = self._watcher if self._watcher and self._watcher.watches(step) else None
        update = self._updates[watcher is not None]
        self.notes = None
        for number, first in enumerate(range(0, len(samples), plan.batch_size)):
            if number:
                barrier.wait()  # slots and arena may be written again when everybody has gathered from them
            batch = samples[first : first + plan.batch_size]
            shard_bounds = bounds(len(batch), plan.shards)
            pass_number = step * plan.options.accumulate + number
            self._slots.begin()
            self._sums.begin(shard_bounds)
            is_watched = watcher is not None and number == 0
            if watcher and is_watched:
                watcher.begin(step)
            *others, last = self._slots.shards
            for shard in others:
                self._pass_over(
                    batch, pass_number, shard, *shard_bounds[shard], group_size=len(samples), is_watched=is_watched
                )
                self._slots.carry()
            left = self._sums.left
            self._pass_over(
                batch,
                pass_number,
                last,
                *shard_bounds[last],
                group_size=len(samples),
                left=left,
                is_watched=is_watched,
            )
            batch_loss, batch_correct = self._sums.finish()
            loss, num_correct = loss + batch_loss / len(samples), num_correct + batch_correct
            if not isfinite(loss):
                return loss, num_correct, True
            update.gather(shard_bounds)
        update.step(np.array(plan.optimizer.hyper(step, epoch), self._dtype), self.generation)
        barrier.wait()
        self._completed[self._world.rank] += 1
        if watcher:
            self.notes = watcher.gather()
            if self.notes is not None:
                self.norms = self._norms.read()
        self.generation = 1 - self.generation
        for places, value in zip(self._places, self._values[self.generation], strict=True):
            places["value"] = value
        return loss, num_correct, False

    def begin_epoch(self) -> None:
        if self._watcher:
            self._watcher.begin_epoch()

    def end_epoch(self) -> Array | None:
        """Which units were active since `begin_epoch`, see `SeenEpoch`; collective.  Worker 0 gets them."""
        return self._watcher.end_epoch() if self._watcher else None

    def _pass_over(
        self,
        batch: Array,
        pass_number: int,
        shard: int,
        first: int,
        stop: int,
        *,
        group_size: int,
        left: Callable[[int], object] | None = None,
        is_watched: bool = False,
    ) -> None:
        """Leave the gradient of one shard's rows in the arena and on the stack of slots.

        group_size: the number of samples in the whole step, over which losses and statistics are means.  left: see
        `Sequential.backward`.
        """
        row = self._slots.push()
        if first == stop:  # the last batch of an epoch may be smaller than the number of shards
            row[:] = 0
        else:
            watcher = self._watcher
            tables = watcher.tables if watcher and is_watched else None
            self._run.enter(first, stop, batch_size=group_size, step=pass_number, shard=shard, tables=tables)
            x = self._run.empty((stop - first, *self.x.shape[1:]), self._dtype)
            loss, targets = self._gather(batch[first:stop], pass_number, shard, x)
            seen = None if watcher is None else watcher.seen_in(shard) if is_watched else watcher.see
            row[-TAIL:] = forward_backward(self.model, loss, x, targets, 1 / group_size, self._run, left, seen)

    def _gather(self, rows: Array, pass_number: int, shard: int, x: Array) -> tuple[Loss, Array]:
        """x = these rows of the data set, augmented; returns the loss for them, and their targets."""
        loss, augment, targets = self._plan.loss, self._plan.augment, self._y[rows]
        if augment is None:
            np.take(self.x, rows, axis=0, out=x, mode="clip")
            return loss, targets
        rng = generator(self._plan.seed, Purpose.AUGMENTATION, pass_number, shard)
        scratch = self._run.scratch("augment", x.shape, x.dtype)
        mixture = augment.gather_inside(self.x, rows, self._image_shape, rng, x, scratch)
        return (MixedTargets(loss, targets[mixture.partners], mixture.share) if mixture else loss), targets

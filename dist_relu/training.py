"""Training, as every worker runs it: pass over my shards, meet, sum and update my chunks, meet.

A step reads one generation of parameters and optimiser state and writes the other; the barrier at its end is the
switch. P parameters, N samples in a batch, S shards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, isfinite
from time import perf_counter

import numpy as np

from dist_relu.arena import Layout, ShardRun, forward_backward
from dist_relu.arrays import Array
from dist_relu.chunks import Sources, costs_of, empty_chunks
from dist_relu.collectives.memory import Handles
from dist_relu.data import Augment
from dist_relu.nn import Loss, MixedTargets, Sequential
from dist_relu.optim import Optimizer
from dist_relu.partition import Purpose, bounds, epoch_order, generator
from dist_relu.slots import TAIL, Slots
from dist_relu.sums import Parts, sums_of
from dist_relu.updates import NUM_SQUARES, StepOptions, cut_for, update_of, watched_norms
from dist_relu.watching import Watcher, WatchRequest
from dist_relu.worker import World

_REPORT_EVERY_S = 0.1


@dataclass(frozen=True)
class Memory:
    """What the workers of a node share while they train.

    x, y: the data set, (samples, ...).  generations: (2, 1 + optimiser states + averages, P).
    slots: (rows, slot length).  sums: (`sums_size`,).  squares: (pieces, NUM_SQUARES).  arena: bytes.
    """

    x: Handles
    y: Handles
    generations: Handles
    slots: Handles
    sums: Handles
    squares: Handles
    arena: Handles


@dataclass(frozen=True)
class FitRequest:
    """Everything a worker must know to train."""

    model: Sequential
    input_shape: tuple[int, ...]
    loss: Loss
    optimizer: Optimizer
    options: StepOptions
    augment: Augment | None
    image_shape: tuple[int, int, int] | None
    layout: Layout
    memory: Memory
    epochs: int
    batch_size: int
    shards: int
    seed: int
    shuffle: bool
    watch: WatchRequest | None


@dataclass(frozen=True)
class Progress:
    """How far training is.  loss and accuracy: means over the samples of this epoch so far."""

    epoch: int
    step: int
    num_steps: int
    loss: float
    accuracy: float
    samples_per_second: float


@dataclass(frozen=True)
class Trace:
    """What happened, step by step.  loss: means over the samples.  hits: samples predicted right.

    norms: (3, params) for each watched step, see `watched_norms`.  generation: the one that holds the final
    parameters.  diverged: the loss of the last step was no number, and the step was not taken.
    """

    loss: Array
    hits: Array
    num_samples: Array
    seconds: Array
    norms: list[Array]
    generation: int
    diverged: bool


def num_steps_per_epoch(num_samples: int, batch_size: int, accumulate: int) -> int:
    """The last batch of an epoch may be smaller than the others, and the last step may have fewer batches."""
    return ceil(num_samples / (batch_size * accumulate))


def fit(world: World, request: FitRequest) -> Trace:
    """Train; collective.  All workers return the same trace, but for the seconds."""
    step_of = _Step(world, request)
    num_samples = len(step_of.x)
    per_step = request.batch_size * request.options.accumulate
    per_epoch = num_steps_per_epoch(num_samples, request.batch_size, request.options.accumulate)
    losses, hits, sizes, seconds = [], [], [], []
    step_of.load_kernels()
    reported = perf_counter()
    step, diverged = 0, False
    for epoch in range(request.epochs):
        epoch_began = perf_counter()
        order = epoch_order(num_samples, request.seed, epoch, shuffle=request.shuffle)
        for i in range(per_epoch):
            begin = perf_counter()
            samples = order[i * per_step : (i + 1) * per_step]
            loss, right, diverged = step_of.take(samples, step, (step + 0.5) / per_epoch)
            now = perf_counter()
            losses.append(loss)
            hits.append(right)
            sizes.append(len(samples))
            seconds.append(now - begin)
            step += 1
            last = i == per_epoch - 1
            if world.rank == 0 and (now - reported > _REPORT_EVERY_S or last or diverged):
                world.report(
                    Progress(
                        epoch,
                        step,
                        request.epochs * per_epoch,
                        float(np.average(losses[-i - 1 :], weights=sizes[-i - 1 :])),
                        sum(hits[-i - 1 :]) / sum(sizes[-i - 1 :]),
                        sum(sizes[-i - 1 :]) / (now - epoch_began),
                    )
                )
                reported = now
            if diverged:
                break
        if diverged:
            break
    numbers = np.array(losses), np.array(hits), np.array(sizes), np.array(seconds)
    return Trace(*numbers, step_of.norms, step_of.generation, diverged)


class _Step:
    """One worker's part of a training step."""

    def __init__(self, world: World, request: FitRequest) -> None:
        self._world = world
        self._request = request
        self._model = model = request.model
        self._dtype = model.dtype
        model.build(request.input_shape)
        memory, attach = request.memory, world.node.attach
        self.x, self._y = attach(memory.x), attach(memory.y)
        self.generation = 0
        generations = attach(memory.generations)
        model.bind(generations[0, 0])
        self._values = [model.views(generation[0]) for generation in generations]
        arrays = request.layout.arrays(attach(memory.arena), request.batch_size)
        self._run = ShardRun(request.layout, arrays, model.params, request.seed)
        self._slots = slots = Slots(model, request.layout, attach(memory.slots), request.shards, world.rank, world.size)
        is_watched = request.watch is not None
        pieces = cut_for(request.optimizer, model, request.layout, is_watched=is_watched)
        sources = Sources(model, request.layout, pieces, arrays, slots, request.shards)
        costs = costs_of(pieces, len(slots.rows), generations.shape[1], request.batch_size, self._dtype.itemsize)
        parts = Parts(model, pieces, costs, sources, slots, request.shards, generations)
        self._sums = sums_of(world, parts, attach(memory.sums))
        self._pieces, self._squares = pieces, attach(memory.squares)
        self._updates = {
            watched: update_of(
                request.optimizer,
                request.options,
                self._sums.chunks,
                pieces,
                self._squares,
                world.node.barrier,
                is_watched=watched,
            )
            for watched in {False, is_watched}
        }
        self._watcher = Watcher(world, request.watch) if request.watch else None
        self.norms: list[Array] = []  # of the watched steps

    def load_kernels(self) -> None:
        """Compile or load whatever a step needs, so that no step has to; collective."""
        self._slots.begin()
        self._pass_over(np.zeros(1, np.int64), 0, 0, 0, 1, group_size=1)
        self._slots.carry()
        request = self._request
        num_vectors = 1 + request.optimizer.num_states + request.options.num_averages
        trial_pieces, trial_chunks = empty_chunks(num_vectors, self._dtype)
        squares = np.zeros((len(trial_pieces), NUM_SQUARES))
        hyper = np.array(request.optimizer.hyper(0, 0.0), self._dtype)
        for is_watched in sorted(self._updates):
            trial = update_of(
                request.optimizer,
                request.options,
                trial_chunks,
                trial_pieces,
                squares,
                self._world.node.barrier,
                is_watched=is_watched,
            )
            for _ in range(min(request.options.accumulate, 2)):
                trial.gather([])
            trial.step(hyper, 0)
        self._world.node.barrier.wait()

    def take(self, samples: Array, step: int, epoch: float) -> tuple[float, int, bool]:
        """Take the step from one generation to the other; returns loss, hits and whether the loss is no number.

        samples: the numbers of all samples of the step, those of several batches when gradients are accumulated.
        """
        request, barrier = self._request, self._world.node.barrier
        loss, hits = 0.0, 0
        watcher = self._watcher if self._watcher and self._watcher.watches(step) else None
        update = self._updates[watcher is not None]
        for number, first in enumerate(range(0, len(samples), request.batch_size)):
            if number:
                barrier.wait()  # slots and arena may be written again when everybody has gathered from them
            batch = samples[first : first + request.batch_size]
            shard_bounds = bounds(len(batch), request.shards)
            pass_number = step * request.options.accumulate + number
            self._slots.begin()
            self._sums.begin(shard_bounds)
            *others, last = self._slots.shards
            for shard in others:
                seen = watcher.seen_by(step, shard) if watcher and not number else None
                self._pass_over(batch, pass_number, shard, *shard_bounds[shard], group_size=len(samples), seen=seen)
                self._slots.carry()
            left = self._sums.left
            seen = watcher.seen_by(step, last) if watcher and not number else None
            self._pass_over(
                batch, pass_number, last, *shard_bounds[last], group_size=len(samples), left=left, seen=seen
            )
            batch_loss, batch_hits = self._sums.finish()
            loss, hits = loss + batch_loss / len(samples), hits + batch_hits
            if not isfinite(loss):
                return loss, hits, True
            update.gather(shard_bounds)
        update.step(np.array(request.optimizer.hyper(step, epoch), self._dtype), self.generation)
        barrier.wait()
        if watcher:
            self.norms.append(watched_norms(self._pieces, self._squares))
        self.generation = 1 - self.generation
        for param, value in zip(self._model.params, self._values[self.generation], strict=True):
            param.value = value
        return loss, hits, False

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
        seen: Callable[[Sequence[Array]], object] | None = None,
    ) -> None:
        """Leave the gradient of one shard's rows in the arena and on the stack of slots.

        group_size: the number of samples in the whole step, over which losses and statistics are means.  left: see
        `Sequential.backward`.  seen: gets the outputs of every pass.
        """
        row = self._slots.push()
        if first == stop:  # the last batch of an epoch may be smaller than the number of shards
            row[:] = 0
        else:
            self._run.enter(first, stop, batch_size=group_size, step=pass_number, shard=shard)
            x = self._run.empty((stop - first, *self.x.shape[1:]), self._dtype)
            loss, targets = self._gather(batch[first:stop], pass_number, shard, x)
            row[-TAIL:] = forward_backward(self._model, loss, x, targets, 1 / group_size, self._run, left, seen)

    def _gather(self, rows: Array, pass_number: int, shard: int, x: Array) -> tuple[Loss, Array]:
        """x = these rows of the data set, augmented; returns the loss for them, and their targets."""
        loss, augment, targets = self._request.loss, self._request.augment, self._y[rows]
        if augment is None:
            np.take(self.x, rows, axis=0, out=x, mode="clip")
            return loss, targets
        rng = generator(self._request.seed, Purpose.AUGMENTATION, pass_number, shard)
        scratch = self._run.scratch("augment", x.shape, x.dtype)
        mixture = augment.gather(self.x, rows, self._request.image_shape, rng, x, scratch)
        return (MixedTargets(loss, targets[mixture.partners], mixture.share) if mixture else loss), targets

"""Training, as every worker runs it: pass over my shards, meet, sum and update my chunks, meet.

A step reads one generation of parameters and optimiser state and writes the other; the barrier at its end is the
switch. P parameters, N samples in a batch, S shards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil, isfinite, prod
from time import perf_counter
from typing import Any

import numpy as np

from dist_relu.arena import Layout, ShardRun, forward_backward
from dist_relu.arrays import Array
from dist_relu.collectives.gradients import ProductSource, SlotSource, Source
from dist_relu.collectives.memory import Handle, attach
from dist_relu.kernels.update import BLOCK, ordered_sum, running_mean
from dist_relu.nn import Loss, Param, Sequential
from dist_relu.optim import Optimizer
from dist_relu.partition import PartialSums, SummationTree, TreeNode, balance, bounds, epoch_order, stack_depth
from dist_relu.worker import World

_TAIL = 2
"""Numbers behind the gradient in a slot: the summed loss and the hits. So they are summed at no extra cost."""

_SLOT_CHUNK = 16 * BLOCK
_TILE_SIZE = 128 * 1024
_MIN_TILE_ROWS = 128
_MIN_TILES = 4
_REPORT_EVERY_S = 0.1


@dataclass(frozen=True)
class Memory:
    """What the workers of a node share while they train.

    x, y: the data set, (samples, ...).  generations: (2, 1 + optimiser states, P).  slots: (rows, slot length).
    arena: bytes.
    """

    x: Handle
    y: Handle
    generations: Handle
    slots: Handle
    arena: Handle


@dataclass(frozen=True)
class FitRequest:
    """Everything a worker must know to train."""

    model: Sequential
    input_shape: tuple[int, ...]
    loss: Loss
    optimizer: Optimizer
    layout: Layout
    memory: Memory
    epochs: int
    batch_size: int
    shards: int
    seed: int
    shuffle: bool


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
    """What happened, step by step.  loss: means over the batch.  hits: samples predicted right.

    generation: the one that holds the final parameters.  diverged: the loss of the last step was no number, and
    the step was not taken.
    """

    loss: Array
    hits: Array
    num_samples: Array
    seconds: Array
    generation: int
    diverged: bool


def num_steps_per_epoch(num_samples: int, batch_size: int) -> int:
    """The last batch of an epoch may be smaller than the others."""
    return ceil(num_samples / batch_size)


def slots_shape(model: Sequential, layout: Layout, shards: int, workers: int) -> tuple[int, int]:
    """A row for every subtree that a worker sums alone; as long as all gradients that are no products."""
    return sum(map(len, _subtrees(shards, workers))), _Slots.length(model, layout)


def fit(world: World, request: FitRequest) -> Trace:
    """Train; collective.  All workers return the same trace, but for the seconds."""
    step_of = _Step(world, request)
    num_samples = len(step_of.x)
    per_epoch = num_steps_per_epoch(num_samples, request.batch_size)
    losses, hits, sizes, seconds = [], [], [], []
    step_of.load_kernels()
    reported = perf_counter()
    step, diverged = 0, False
    for epoch in range(request.epochs):
        epoch_began = perf_counter()
        order = epoch_order(num_samples, request.seed, epoch, shuffle=request.shuffle)
        for i in range(per_epoch):
            begin = perf_counter()
            batch = order[i * request.batch_size : (i + 1) * request.batch_size]
            loss, right, diverged = step_of.take(batch, step, (step + 0.5) / per_epoch)
            now = perf_counter()
            losses.append(loss)
            hits.append(right)
            sizes.append(len(batch))
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
    return Trace(np.array(losses), np.array(hits), np.array(sizes), np.array(seconds), step_of.generation, diverged)


class _Step:
    """One worker's part of a training step."""

    def __init__(self, world: World, request: FitRequest) -> None:
        self._world = world
        self._request = request
        self._model = model = request.model
        self._dtype = model.dtype
        model.build(request.input_shape)
        self.x, self._y = attach(request.memory.x), attach(request.memory.y)
        self.generation = 0
        generations = attach(request.memory.generations)
        model.bind(generations[0, 0])
        self._values = [model.views(generation[0]) for generation in generations]
        arrays = request.layout.arrays(attach(request.memory.arena), request.batch_size)
        self._run = ShardRun(request.layout, arrays, model.params, request.seed)
        self._slots = _Slots(world, request, attach(request.memory.slots))
        self._chunks = _my_chunks(world, request, arrays, generations, self._slots)

    def load_kernels(self) -> None:
        """Compile or load whatever a step needs, so that no step has to; collective."""
        self._slots.begin()
        self._pass_over(np.zeros(1, np.int64), 0, 0, 0, 1)
        hyper = np.array(self._request.optimizer.hyper(0, 0.0), self._dtype)
        nothing = [np.empty(0, self._dtype)] * (1 + self._request.optimizer.num_states)
        gradient = PartialSums(np.empty((1, 0), self._dtype), 0, np.empty(0, np.int64), np.empty((1, 0), self._dtype))
        self._request.optimizer.update(gradient, nothing, nothing, hyper)
        self._world.barrier.wait()

    def take(self, batch: Array, step: int, epoch: float) -> tuple[float, int, bool]:
        """Take the step from one generation to the other; returns loss, hits and whether the loss is no number."""
        request, barrier = self._request, self._world.barrier
        shard_bounds = bounds(len(batch), request.shards)
        self._slots.begin()
        for shard in self._slots.shards:
            self._pass_over(batch, step, shard, *shard_bounds[shard])
        barrier.wait()
        loss_sum, hits = self._slots.total_tail()
        loss = loss_sum / len(batch)
        if not isfinite(loss):
            return loss, hits, True
        hyper = np.array(request.optimizer.hyper(step, epoch), self._dtype)
        for chunk in self._chunks:
            gradient = chunk.source.partial_sums(shard_bounds)
            old, new = chunk.generations[self.generation], chunk.generations[1 - self.generation]
            if chunk.momentum is None:
                request.optimizer.update(gradient, old, new, hyper)
            else:
                running_mean(*gradient, old[0], new[0], chunk.momentum)
        barrier.wait()
        self.generation = 1 - self.generation
        for param, value in zip(self._model.params, self._values[self.generation], strict=True):
            param.value = value
        return loss, hits, False

    def _pass_over(self, batch: Array, step: int, shard: int, first: int, stop: int) -> None:
        """Leave the gradient of one shard's rows in the arena and on the stack of slots."""
        row = self._slots.push()
        if first == stop:  # the last batch of an epoch may be smaller than the number of shards
            row[:] = 0
        else:
            self._run.enter(first, stop, batch_size=len(batch), step=step, shard=shard)
            x = self._run.empty((stop - first, *self.x.shape[1:]), self._dtype)
            np.take(self.x, batch[first:stop], axis=0, out=x, mode="clip")
            targets = self._y[batch[first:stop]]
            row[-_TAIL:] = forward_backward(self._model, self._request.loss, x, targets, 1 / len(batch), self._run)
        self._slots.carry()


class _Slots:
    """The gradients that are no products: where this worker leaves its sums, and where all sums lie.

    A slot is laid out as the summed parameters, in layer order, and the tail. This worker's stack of partial sums
    grows from its first shared row; what goes beyond its rows is private, since it does not stay.
    """

    def __init__(self, world: World, request: FitRequest, slots: Array) -> None:
        model, workers = request.model, world.size
        self._tree = SummationTree(request.shards)
        subtrees = _subtrees(request.shards, workers)
        self.shards = range(*bounds(request.shards, workers)[world.rank])
        self._carries, kept = self._tree.fold(self._tree.leaves(self.shards.start, self.shards.stop))
        first_row = sum(map(len, subtrees[: world.rank]))
        shared = list(slots[first_row : first_row + len(kept)])
        private = [np.empty_like(slots[0]) for _ in range(stack_depth(self._carries) - len(kept))]
        self._stack = shared + private
        summed = [param for number, param in enumerate(model.params) if number not in request.layout.products]
        self._summed = summed
        self._views = [_views(row, [param.shape for param in summed]) for row in self._stack]
        self._top = self._pushed = 0
        self.rows = slots
        self.carries, _ = self._tree.fold([node for nodes in subtrees for node in nodes])
        self._total_tail = np.empty(_TAIL, slots.dtype)
        self._tail = SlotSource(slots, slots.shape[1] - _TAIL, self.carries)

    @staticmethod
    def length(model: Sequential, layout: Layout) -> int:
        sizes = (prod(param.shape) for number, param in enumerate(model.params) if number not in layout.products)
        return sum(sizes) + _TAIL

    def begin(self) -> None:
        """Begin with an empty stack."""
        self._top = self._pushed = 0

    def push(self) -> Array:
        """Bind the model's gradients to the next row of the stack, which is returned."""
        for param, view in zip(self._summed, self._views[self._top], strict=True):
            param.grad = view
        self._top += 1
        row: Array = self._stack[self._top - 1]
        return row

    def carry(self) -> None:
        """Add the topmost rows as the summation tree asks after this shard."""
        for _ in range(self._carries[self._pushed]):
            self._top -= 1
            self._stack[self._top - 1] += self._stack[self._top]
        self._pushed += 1

    def total_tail(self) -> tuple[float, int]:
        """Loss and hits of the whole batch; every worker sums these few numbers for itself."""
        ordered_sum(*self._tail.partial_sums([]), self._total_tail)
        return float(self._total_tail[0]), int(self._total_tail[1])


@dataclass(frozen=True)
class _Chunk:
    """A contiguous piece of the flat vector that one worker sums and updates.

    generations: for both, the pieces of the parameters and of each optimiser state.
    momentum: of running means, which the optimiser does not touch.
    cost_s: the time it takes, roughly; only its proportions matter.
    """

    source: Source
    momentum: float | None
    generations: Sequence[Sequence[Array]]
    cost_s: float


def _my_chunks(
    world: World, request: FitRequest, arrays: Sequence[Array], generations: Array, slots: _Slots
) -> list[_Chunk]:
    """This worker's share of the parameter vector, balanced by the time that chunks take."""
    chunks: list[_Chunk] = []
    itemsize = generations.itemsize

    def add(source: Source, start: int, stop: int, *, num_flops: float = 0.0, momentum: float | None = None) -> None:
        pieces = [[row[start:stop] for row in generation] for generation in generations]
        traffic_bytes = (stop - start) * itemsize * (len(slots.rows) + 2 * generations.shape[1])
        chunks.append(_Chunk(source, momentum, pieces, 3e-6 + num_flops / 100e9 + traffic_bytes / 20e9))

    carries, _ = SummationTree(request.shards).fold(SummationTree(request.shards).leaves(0, request.shards))
    scratch = np.empty((stack_depth(carries), _largest_tile(request)), generations.dtype)
    start = slot_start = 0

    def kind(item: tuple[int, Param]) -> tuple[bool, float | None]:
        return item[0] in request.layout.products, item[1].momentum

    for (is_product, momentum), run in groupby(enumerate(request.model.params), kind):
        if is_product:
            for number, param in run:
                num_inputs, num_units = param.shape
                x_buffer, dz_buffer = request.layout.products[number]
                x, dz = arrays[x_buffer].reshape(-1, num_inputs), arrays[dz_buffer].reshape(-1, num_units)
                for first, stop in _tiles(num_inputs, num_units):
                    product = ProductSource(x, dz, len(x) // request.batch_size, first, stop, carries, scratch)
                    num_flops = 2.0 * len(x) * (stop - first) * num_units
                    add(product, start + first * num_units, start + stop * num_units, num_flops=num_flops)
                start += prod(param.shape)
        else:  # neighbours in the vector are neighbours in the slots
            size = sum(prod(param.shape) for _, param in run)
            for first, stop in bounds(size, ceil(size / _SLOT_CHUNK)):
                slot = SlotSource(slots.rows, slot_start + first, slots.carries)
                add(slot, start + first, start + stop, momentum=momentum)
            slot_start += size
            start += size
    mine = balance([chunk.cost_s for chunk in chunks], world.size)[world.rank]
    return chunks[mine.start : mine.stop]


def _tiles(num_rows: int, num_cols: int) -> list[tuple[int, int]]:
    """Cut the rows of a weight into pieces.

    Small enough for the cache, large enough for a fast product, and several for the workers to share.
    """
    rows = max(_TILE_SIZE // num_cols, _MIN_TILE_ROWS)
    return bounds(num_rows, max(ceil(num_rows / rows), min(_MIN_TILES, num_rows)))


def _largest_tile(request: FitRequest) -> int:
    shapes = [request.model.params[number].shape for number in request.layout.products]
    return max((max(stop - first for first, stop in _tiles(rows, cols)) * cols for rows, cols in shapes), default=0)


def _subtrees(shards: int, workers: int) -> list[list[TreeNode]]:
    """For every worker the subtrees of the summation tree that it sums alone."""
    tree = SummationTree(shards)
    return [tree.fold(tree.leaves(first, stop))[1] for first, stop in bounds(shards, workers)]


def _views(row: Array, shapes: Sequence[tuple[int, ...]]) -> list[Array]:
    views: list[Any] = []
    start = 0
    for shape in shapes:
        stop = start + prod(shape)
        views.append(row[start:stop].reshape(shape))
        start = stop
    return views

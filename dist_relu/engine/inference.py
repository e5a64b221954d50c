"""Work on the rows of an array, as every worker runs it: evaluation, outputs, activations, ReLU itself.

Rows are cut into blocks of a fixed size that workers share out, so that a row's result does not depend on how
many workers there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dist_relu.comm.shared_memory import Handles
from dist_relu.core.arrays import Array
from dist_relu.kernels.activations import relu as pair
from dist_relu.nn import Loss, PlainPass, Sequential
from dist_relu.partition import bounds
from dist_relu.runtime.world import World

BLOCK_ROWS = 256


@dataclass(frozen=True)
class ModelInput:
    """A model with its parameters (P,), and samples x (N, ...)."""

    model: Sequential
    input_shape: tuple[int, ...]
    values: Handles
    x: Handles

    def attach(self, world: World) -> tuple[Sequential, Array]:
        self.model.build(self.input_shape)
        self.model.bind(world.node.attach(self.values))
        return self.model, world.node.attach(self.x)


@dataclass(frozen=True)
class EvaluateRequest:
    """sums: (blocks, 2) float64, gets the summed loss and the number of correct samples of each block."""

    input: ModelInput
    y: Handles
    loss: Loss
    sums: Handles


def num_blocks(num_rows: int) -> int:
    return -(-num_rows // BLOCK_ROWS)


def evaluate(world: World, request: EvaluateRequest) -> None:
    """Sum the loss and the number of correct predictions over the samples of every block; collective."""
    model, x = request.input.attach(world)
    y, sums = world.node.attach(request.y), world.node.attach(request.sums)
    run = PlainPass(training=False)
    for block, rows in my_blocks(world, len(x)):
        outputs = model.forward(x[rows], run)
        sums[block] = request.loss.backward_inside(outputs, y[rows], 1.0, np.empty_like(outputs))


@dataclass(frozen=True)
class ActivationsRequest:
    """outputs: (N, ...) for each layer, or for the last one alone."""

    input: ModelInput
    outputs: Sequence[Handles]
    every_layer: bool


def activations(world: World, request: ActivationsRequest) -> None:
    """Write the output of every layer, or of the model; collective."""
    model, x = request.input.attach(world)
    targets = [world.node.attach(handles) for handles in request.outputs]
    run = PlainPass(training=False)
    for _, rows in my_blocks(world, len(x)):
        outputs = model.activations(x[rows], run) if request.every_layer else [model.forward(x[rows], run)]
        for target, output in zip(targets, outputs, strict=True):
            target[rows] = output


@dataclass(frozen=True)
class ReluRequest:
    """x and result: (n,), any array flattened; dy: the gradient of ReLU's output, or None for the forward direction."""

    x: Handles
    dy: Handles | None
    result: Handles
    partitions: int


def relu(world: World, request: ReluRequest) -> None:
    """ReLU or its backward on this worker's partitions; collective."""
    x, result = world.node.attach(request.x), world.node.attach(request.result)
    dy = None if request.dy is None else world.node.attach(request.dy)
    first, stop = bounds(request.partitions, world.size)[world.rank]
    for start, end in bounds(len(x), request.partitions)[first:stop]:
        if dy is None:
            pair.forward(x[start:end], result[start:end])
        else:
            result[start:end] = dy[start:end]
            pair.backward(result[start:end], x[start:end])


def rows_of_blocks(num_rows: int, workers: int) -> list[range]:
    """The rows whose blocks each worker does, by rank."""
    return [
        range(min(first * BLOCK_ROWS, num_rows), min(stop * BLOCK_ROWS, num_rows))
        for first, stop in bounds(num_blocks(num_rows), workers)
    ]


def elements_of_partitions(num_elements: int, partitions: int, workers: int) -> list[range]:
    """The elements whose partitions each worker does, by rank."""
    starts = [*(start for start, _ in bounds(num_elements, partitions)), num_elements]
    return [range(starts[first], starts[stop]) for first, stop in bounds(partitions, workers)]


def my_blocks(world: World, num_rows: int) -> Iterator[tuple[int, slice]]:
    """This worker's blocks: their numbers and rows.  Ends early when the call is given up."""
    for block in range(*bounds(num_blocks(num_rows), world.size)[world.rank]):
        world.barrier.check()
        yield block, slice(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, num_rows))

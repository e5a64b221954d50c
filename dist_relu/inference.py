"""Work on the rows of an array, as every worker runs it: evaluation, outputs, activations, ReLU itself.

Rows are cut into blocks of a fixed size that workers share out, so that a row's result does not depend on how
many workers there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dist_relu.arrays import Array
from dist_relu.collectives.memory import Handle, attach
from dist_relu.kernels.activations import relu as pair
from dist_relu.nn import Loss, PlainRun, Sequential
from dist_relu.partition import bounds
from dist_relu.worker import World

BLOCK_ROWS = 256


@dataclass(frozen=True)
class ModelInput:
    """A model with its parameters (P,), and samples x (N, ...)."""

    model: Sequential
    input_shape: tuple[int, ...]
    values: Handle
    x: Handle

    def attach(self) -> tuple[Sequential, Array]:
        self.model.build(self.input_shape)
        self.model.bind(attach(self.values))
        return self.model, attach(self.x)


@dataclass(frozen=True)
class EvaluateRequest:
    """sums: (blocks, 2) float64, gets loss and hits of each block."""

    input: ModelInput
    y: Handle
    loss: Loss
    sums: Handle


def num_blocks(num_rows: int) -> int:
    return -(-num_rows // BLOCK_ROWS)


def evaluate(world: World, request: EvaluateRequest) -> None:
    """Sum loss and hits over the samples of every block; collective."""
    model, x = request.input.attach()
    y, sums = attach(request.y), attach(request.sums)
    run = PlainRun(training=False)
    for block, rows in _my_blocks(world, len(x)):
        outputs = model.forward(x[rows], run)
        sums[block] = request.loss.backward(outputs, y[rows], 1.0, np.empty_like(outputs))


@dataclass(frozen=True)
class ActivationsRequest:
    """outputs: (N, ...) for each layer, or for the last one alone."""

    input: ModelInput
    outputs: Sequence[Handle]
    every_layer: bool


def activations(world: World, request: ActivationsRequest) -> None:
    """Write the output of every layer, or of the model; collective."""
    model, x = request.input.attach()
    targets = [attach(handle) for handle in request.outputs]
    run = PlainRun(training=False)
    for _, rows in _my_blocks(world, len(x)):
        outputs = model.activations(x[rows], run) if request.every_layer else [model.forward(x[rows], run)]
        for target, output in zip(targets, outputs, strict=True):
            target[rows] = output


@dataclass(frozen=True)
class ReluRequest:
    """x and result: (n,), any array flattened; dy: the gradient of ReLU's output, or None for the forward direction."""

    x: Handle
    dy: Handle | None
    result: Handle
    partitions: int


def relu(world: World, request: ReluRequest) -> None:
    """ReLU or its backward on this worker's partitions; collective."""
    x, result = attach(request.x), attach(request.result)
    dy = None if request.dy is None else attach(request.dy)
    first, stop = bounds(request.partitions, world.size)[world.rank]
    for start, end in bounds(len(x), request.partitions)[first:stop]:
        if dy is None:
            pair.forward(x[start:end], result[start:end])
        else:
            result[start:end] = dy[start:end]
            pair.backward(result[start:end], x[start:end])


def _my_blocks(world: World, num_rows: int) -> Iterator[tuple[int, slice]]:
    """This worker's blocks: their numbers and rows.  Ends early when the call is given up."""
    for block in range(*bounds(num_blocks(num_rows), world.size)[world.rank]):
        world.barrier.check()
        yield block, slice(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, num_rows))

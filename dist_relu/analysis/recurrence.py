"""Gradients are measured on their way back through time: at the state of a recurrence after every step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dist_relu.comm.shared_memory import Handles
from dist_relu.coordinator import Coordinator, surviving
from dist_relu.core.checks import check_is
from dist_relu.engine.arguments import (
    Data,
    check_has_parameters,
    check_model,
    dataset_of,
    loss_for,
    samples_to_measure,
)
from dist_relu.engine.inference import ModelInput, Placement, my_blocks
from dist_relu.nn import RNN, Loss, PlainPass, Sequential
from dist_relu.nn.losses.composed import Weighted
from dist_relu.nn.structure import layer_names
from dist_relu.runtime.world import World


@dataclass(frozen=True, kw_only=True)
class TimeFlow:
    """These are the gradients of each sample's own loss with respect to the states of the RNN layer called `name`.

    norms: one for every step, the first one first: the Euclidean norm at the state after that step, of which the root
    of the mean square over samples.
    """

    name: str
    norms: list[float]


@surviving
def gradient_through_time(
    coordinator: Coordinator, model: Sequential, data: Data, *, loss: Loss | None = None
) -> list[TimeFlow]:
    """Measure the norm of the gradient at every step of every RNN layer of the model, by back-propagation through time.

    A state acts on the loss through all that follows from it; where a layer is truncated, up to there only. The model
    computes as in evaluation. Where samples have weights, each one's loss counts times its weight over the mean weight.
    loss: by default cross-entropy for class numbers, otherwise the mean squared error.

    Collective; the same bits on any number of workers. Raises ValueError and DataError for what does not fit together,
    and for a model without RNN layers.
    """
    check_is("coordinator", coordinator, Coordinator)
    data = dataset_of(data)
    loss = loss_for(data, loss)
    check_has_parameters(model)
    x = samples_to_measure(model, data.rows)
    check_model(model, data, loss)
    steps = _steps(model)
    if not steps:
        raise ValueError(f"Gradients go through time in RNN layers, and the model has none: {model}.")
    with coordinator.replicas.for_a_call() as replicas:
        placement = Placement.of(replicas, len(x))
        samples = placement.samples(x, model.dtype)
        targets = placement.targets(data.y, np.int64 if data.has_classes else model.dtype)
        weights = placement.weights(data.weights)
        squares = replicas.zeros((placement.num_blocks, sum(steps.values())), np.float64)
        request = _Request(
            input=placement.model(model, samples),
            y=targets.handles,
            weights=weights.handles,
            loss=loss,
            squares=squares.handles,
        )
        coordinator.run(_back_propagate, request)
        mean = np.add.reduce(squares.gather(placement.blocks), axis=0) / len(x)
    flows, stop = [], 0
    for number, num_steps in steps.items():
        start, stop = stop, stop + num_steps
        flows.append(TimeFlow(name=layer_names(model)[number], norms=np.sqrt(mean[start:stop]).tolist()))
    return flows


@dataclass(frozen=True, kw_only=True)
class _Request:
    """squares: (blocks, steps of all RNN layers, one after the other), gets sums of squares over samples and units."""

    input: ModelInput
    y: Handles
    weights: Handles
    loss: Loss
    squares: Handles


def _back_propagate(world: World, request: _Request) -> None:
    """Measure the gradients of every block; collective."""
    model, x = request.input.attach(world)
    y, squares = world.node.attach(request.y), world.node.attach(request.squares)
    weights = world.node.attach(request.weights)
    steps, run = _steps(model), PlainPass(training=False)
    for block, rows in my_blocks(world, len(x)):
        outputs = model.activations(x[rows], run)[-1]
        gradient, at = np.empty_like(outputs), squares.shape[1]
        loss = Weighted(request.loss, weights[rows]) if len(weights) else request.loss
        loss.backward(outputs, y[rows], 1.0, gradient)
        for number in range(len(model.layers) - 1, min(steps) - 1, -1):
            layer, d_output = model.layers[number], gradient
            gradient = layer.backward(d_output, run)
            if isinstance(layer, RNN):
                of_states = layer.state_gradients(d_output).astype(np.float64)
                at -= steps[number]
                squares[block, at : at + steps[number]] = np.square(of_states, out=of_states).sum(axis=(0, 2))


def _steps(model: Sequential) -> dict[int, int]:
    """Count the steps that every RNN layer of a built model takes, by the number of the layer."""
    shapes = [model.input_shape, *model.layer_shapes]
    return {number: shapes[number][0] for number, layer in enumerate(model.layers) if isinstance(layer, RNN)}

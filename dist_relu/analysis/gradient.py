"""Gradients are measured on their way from the loss back to the input: true back-propagation, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod, sqrt

import numpy as np

from dist_relu.comm.shared_memory import Handles
from dist_relu.coordinator import Coordinator, surviving
from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_is
from dist_relu.engine.arguments import Data, check_has_parameters, check_model, dataset_of, loss_for, samples_to_measure
from dist_relu.engine.inference import ModelInput, Placement, my_blocks, num_blocks
from dist_relu.engine.watch.moments import NUM_MOMENTS, Magnitude, moments_of, put_together
from dist_relu.nn import Loss, PlainPass, Sequential
from dist_relu.nn.losses.composed import Weighted
from dist_relu.nn.structure import layer_names
from dist_relu.partition import Fold, SummationTree, TreeNode, bounds
from dist_relu.runtime.world import World


@dataclass(frozen=True, kw_only=True)
class GradientFlow:
    """Gradients of the loss.

    loss: the mean over samples, by their weights where they have some.  outputs: of each sample's own loss (times its
    weight over the mean weight), with respect to the input and to the output of every layer, in the order of the
    layers.  weights: of the mean loss, with respect to every parameter, by its name.
    """

    loss: float
    outputs: dict[str, Magnitude]
    weights: dict[str, Magnitude]


@surviving
def gradient_flow(coordinator: Coordinator, model: Sequential, data: Data, *, loss: Loss | None = None) -> GradientFlow:
    """Measure the gradient at every layer of the model (as it was written), from the loss to the input.

    The model computes as in evaluation: nothing is dropped, and normalisation uses its running statistics. So these are
    the derivatives of what `Coordinator.evaluate` returns. The gradient of whole numbers (`Embedding`) counts as 0.
    loss: by default cross-entropy for class numbers, otherwise the mean squared error.

    Collective; the same bits on any number of workers. Memory for about log2(samples / 256) gradient vectors is
    needed on every worker. Raises ValueError and DataError for what does not fit together.
    """
    check_is("coordinator", coordinator, Coordinator)
    data = dataset_of(data)
    loss = loss_for(data, loss)
    check_has_parameters(model)
    x = samples_to_measure(model, data.rows)
    check_model(model, data, loss)
    num_stages = 1 + len(model.layers)
    tree = SummationTree(num_blocks(len(x)))
    left = [tree.fold(tree.leaves(*part))[1] for part in bounds(num_blocks(len(x)), coordinator.workers)]
    starts = np.cumsum([0, *map(len, left)]).tolist()
    with coordinator.replicas.for_a_call() as replicas:
        placement = Placement.of(replicas, len(x))
        samples = placement.samples(x, model.dtype)
        targets = placement.targets(data.y, np.int64 if data.has_classes else model.dtype)
        sample_weights = placement.weights(data.weights)
        losses = replicas.zeros((placement.num_blocks,), np.float64)
        moments = replicas.zeros((placement.num_blocks, num_stages, NUM_MOMENTS), np.float64)
        sums = replicas.zeros((starts[-1], model.num_params), model.dtype)
        request = _Request(
            input=placement.model(model, samples),
            y=targets.handles,
            sample_weights=sample_weights.handles,
            loss=loss,
            losses=losses.handles,
            moments=moments.handles,
            sums=sums.handles,
            starts=starts,
        )
        coordinator.run(_back_propagate, request)
        loss_sum = float(np.add.reduce(losses.gather(placement.blocks)))
        blocks = moments.gather(placement.blocks)
        own = replicas.rows_by_node([range(*part) for part in pairwise(starts)])
        gradient = _sum_along(tree, [node for nodes in left for node in nodes], list(sums.gather(own)))
    outputs = {}
    shapes = [model.input_shape, *model.layer_shapes]
    for number, (name, shape) in enumerate(zip(["input", *layer_names(model)], shapes, strict=True)):
        whole = put_together(blocks[:, number], placement.block_sizes * prod(shape))
        outputs[name] = Magnitude(sqrt(whole.sum_of_squares / len(x)), whole.mean_absolute, whole.variance)
    weights = {}
    for name, param, view in zip(model.names, model.params, model.views(gradient), strict=True):
        if param.momentum is None:
            weights[name] = _magnitude(view.astype(np.float64).reshape(1, -1) / len(x))
    return GradientFlow(loss=loss_sum / len(x), outputs=outputs, weights=weights)


@dataclass(frozen=True, kw_only=True)
class _Request:
    """losses: (blocks,).  moments: (blocks, 1 + layers, NUM_MOMENTS).

    sums: (rows, P), gets what is left of each worker's gradients when they are added along the tree over blocks;
    worker r has the rows from starts[r] to starts[r + 1].
    """

    input: ModelInput
    y: Handles
    sample_weights: Handles
    loss: Loss
    losses: Handles
    moments: Handles
    sums: Handles
    starts: list[int]


def _back_propagate(world: World, request: _Request) -> None:
    """Measure the gradients of every block, and add up those of the parameters; collective."""
    model, x = request.input.attach(world)
    y, losses = world.node.attach(request.y), world.node.attach(request.losses)
    weights = world.node.attach(request.sample_weights)
    moments, sums = world.node.attach(request.moments), world.node.attach(request.sums)
    tree = SummationTree(len(losses))
    carries, _ = tree.fold(tree.leaves(*bounds(len(losses), world.size)[world.rank]))
    run = PlainPass(training=False)
    fold = Fold(carries, _add)
    for block, rows in my_blocks(world, len(x)):
        outputs = model.activations(x[rows], run)[-1]
        gradient = np.empty_like(outputs)
        loss = Weighted(request.loss, weights[rows]) if len(weights) else request.loss
        losses[block], _ = loss.backward(outputs, y[rows], 1.0, gradient)
        moments[block, -1] = moments_of(gradient)
        for number, layer in reversed(list(enumerate(model.layers))):
            gradient = layer.backward(gradient, run)
            moments[block, number] = moments_of(gradient)
        fold.push(np.concatenate([param.grad.reshape(-1) for param in model.params] or [np.empty(0, model.dtype)]))
        fold.carry()
    start, stop = request.starts[world.rank : world.rank + 2]
    for row, total in zip(range(start, stop), fold.sums(), strict=True):
        sums[row] = total


def _sum_along(tree: SummationTree, nodes: list[TreeNode], gradients: list[Array]) -> Array:
    """Sum all gradients, along the tree."""
    fold = Fold(tree.fold(nodes)[0], _add)
    for gradient in gradients:
        fold.push(gradient)
        fold.carry()
    (total,) = fold.sums()
    return total


def _add(left: Array, right: Array) -> Array:
    left += right
    return left


def _magnitude(rows: Array) -> Magnitude:
    """Measure one gradient, in one row."""
    whole = put_together(moments_of(rows)[np.newaxis], np.array([rows.size]))
    return Magnitude(sqrt(whole.sum_of_squares), whole.mean_absolute, whole.variance)

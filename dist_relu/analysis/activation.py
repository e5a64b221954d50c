"""These statistics tell what comes out of the layers of a model: how much is zero, and which units are always 0.

A unit is a place on the last axis of a layer's output: a unit of a dense layer, a channel of an image.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from dist_relu.comm.shared_memory import Handles
from dist_relu.coordinator import Coordinator, surviving
from dist_relu.core.arrays import as_rows
from dist_relu.core.checks import check_is
from dist_relu.engine.arguments import samples_to_measure
from dist_relu.engine.inference import ModelInput, Placement, my_blocks
from dist_relu.engine.watch.moments import NUM_MOMENTS, moments_of, put_together
from dist_relu.nn import PlainPass, Sequential
from dist_relu.nn.structure import layer_names
from dist_relu.runtime.world import World


@dataclass(frozen=True, kw_only=True)
class LayerActivations:
    """These are the outputs of a layer over some samples, in numbers.

    sparsity: the share of exact zeros.  dead: the numbers of the units that were 0 for every sample.
    mean, variance: over all elements.
    """

    name: str
    num_units: int
    sparsity: float
    dead: list[int]
    mean: float
    variance: float


@surviving
def activation_statistics(coordinator: Coordinator, model: Sequential, x: npt.ArrayLike) -> list[LayerActivations]:
    """Measure what every layer of the model (as it was written, in evaluation) makes of samples x (N, *input_shape).

    Collective; the same bits on any number of workers. Raises ValueError for a model without parameters and DataError
    for samples that there are none of.
    """
    check_is("coordinator", coordinator, Coordinator)
    x = samples_to_measure(model, x)
    units = [shape[-1] for shape in model.layer_shapes]
    with coordinator.replicas.for_a_call() as replicas:
        placement = Placement.of(replicas, len(x))
        samples = placement.samples(x, model.dtype)
        active = replicas.zeros((coordinator.workers, sum(units)), np.int64)
        moments = replicas.zeros((placement.num_blocks, len(units), NUM_MOMENTS), np.float64)
        model_input = placement.model(model, samples)
        request = _Request(input=model_input, active=active.handles, moments=moments.handles)
        coordinator.run(_measure, request)
        num_active = np.add.reduce(active.gather(placement.ranks), axis=0)
        blocks = moments.gather(placement.blocks)
    layers, stop = [], 0
    for number, (name, shape) in enumerate(zip(layer_names(model), model.layer_shapes, strict=True)):
        first, stop = stop, stop + shape[-1]
        here = num_active[first:stop]
        whole = put_together(blocks[:, number], placement.block_sizes * prod(shape))
        sparsity = 1 - int(here.sum()) / whole.size
        dead = np.flatnonzero(here == 0).tolist()
        layers.append(
            LayerActivations(
                name=name,
                num_units=shape[-1],
                sparsity=sparsity,
                dead=dead,
                mean=whole.mean,
                variance=whole.variance,
            )
        )
    return layers


def dead_units(coordinator: Coordinator, model: Sequential, x: npt.ArrayLike) -> list[list[int]]:
    """Find the units of every layer, by number, whose output is exactly 0 for every sample of x (N, *input_shape).

    Collective; raises what `activation_statistics` does.
    """
    return [layer.dead for layer in activation_statistics(coordinator, model, x)]


@dataclass(frozen=True, kw_only=True)
class _Request:
    """active: (workers, units of all layers), gets each worker's counts.  moments: (blocks, layers, NUM_MOMENTS)."""

    input: ModelInput
    active: Handles
    moments: Handles


def _measure(world: World, request: _Request) -> None:
    """Count what is not 0, unit by unit, and form the moments of every block; collective."""
    model, x = request.input.attach(world)
    active, moments = world.node.attach(request.active)[world.rank], world.node.attach(request.moments)
    run = PlainPass(training=False)
    for block, rows in my_blocks(world, len(x)):
        stop = 0
        for number, output in enumerate(model.activations(x[rows], run)):
            first, stop = stop, stop + output.shape[-1]
            active[first:stop] += np.count_nonzero(as_rows(output), axis=0)
            moments[block, number] = moments_of(output)

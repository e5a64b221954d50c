"""Models lose their dead units here, with the proof that they still compute the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dist_relu.analysis.activation import dead_units
from dist_relu.comm.shared_memory import Handles
from dist_relu.coordinator import Coordinator, surviving
from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_bool, check_is
from dist_relu.data.rows import Rows
from dist_relu.engine.arguments import samples_to_measure
from dist_relu.engine.inference import ModelInput, Placement, my_blocks
from dist_relu.kernels.packing import DEPTH
from dist_relu.nn import ActivityPenalty, Dense, Dropout, Layer, PlainPass, RReLU, Sequential
from dist_relu.nn.layers.activations import Elementwise
from dist_relu.runtime.world import World


@dataclass(frozen=True, kw_only=True)
class Compaction:
    """A compaction is a smaller model, and how its outputs compare with those of the one that it was made of.

    removed: how many units each dense layer (by its number) lost, and left: how many dead ones it kept, for the bits'
    sake or because all are dead; of those layers whose units can be removed.  num_changed: elements of the outputs
    that have other bits.  largest_difference: between any of them and what they were.
    """

    model: Sequential
    removed: dict[int, int]
    left: dict[int, int]
    num_changed: int
    largest_difference: float


def compact(coordinator: Coordinator, model: Sequential, x: npt.ArrayLike, *, exact: bool = True) -> Compaction:
    """Copy the model without units of dense layers that are 0 for every sample of x.  Collective.

    What a unit that is 0 adds to the next dense layer is 0. So units go from every `Dense` that is followed by another
    one, with nothing but functions of single numbers (ReLU and its kin, Dropout) between the two. One unit is kept
    where all are dead.

    exact: the outputs for x keep their bits, which is checked. Products are sums of chains of 256 terms
    (`kernels.products.DEPTH`), so a unit that goes must not move others into another chain. A layer of up to 256 units
    loses all its dead ones; a wider one loses whole blocks of 256 that are dead, and all dead units of the last block
    that is not. Otherwise every dead unit goes, sums may be rounded differently, and the result says by how much.

    Raises FloatingPointError when outputs changed all the same: when weights that dead units are multiplied by are
    infinite or NaN, or layers of your own look at more than one sample.
    """
    check_is("coordinator", coordinator, Coordinator)
    exact = check_bool("exact", exact)
    x = samples_to_measure(model, x)
    dead = dead_units(coordinator, model, x)
    layers = list(model.blueprint().layers)
    values = dict(zip(map(id, model.params), model.views(model.values), strict=True))
    removed: dict[int, int] = {}
    left: dict[int, int] = {}
    for number, following in _pairs(model.layers):
        dense = _dense(model.layers[number])
        alive = np.ones(dense.units, bool)
        alive[dead[following - 1]] = False
        kept = _kept(alive, exact=exact)
        removed[number], left[number] = int((~kept).sum()), int((kept & ~alive).sum())
        layers[number] = replace(_dense(layers[number]), units=int(kept.sum()))
        for param in dense.params():
            values[id(param)] = values[id(param)][..., kept]
        weight = _dense(model.layers[following]).weight
        values[id(weight)] = values[id(weight)][kept]
    smaller = Sequential(*layers, dtype=model.dtype).build(model.input_shape)
    smaller.bind(np.concatenate([values[id(param)].reshape(-1) for param in model.params]))
    num_changed, largest = _compare(coordinator, model, smaller, x)
    if exact and num_changed:
        raise FloatingPointError(
            f"{num_changed} outputs changed, by up to {largest:.3g}, when units were removed that are always 0. "
            "Weights may be infinite or NaN, or a layer may look at more than one sample; "
            "pass exact=False to have the smaller model all the same."
        )
    return Compaction(
        model=smaller,
        removed=removed,
        left=left,
        num_changed=num_changed,
        largest_difference=largest,
    )


def _pairs(layers: Sequence[Layer]) -> list[tuple[int, int]]:
    """Find the numbers of dense layers, and of those that take their outputs unit by unit."""
    pairs, before = [], None
    for number, layer in enumerate(layers):
        if isinstance(layer, Dense):
            if before is not None:
                pairs.append((before, number))
            before = number
        elif not isinstance(layer, Elementwise | ActivityPenalty | Dropout | RReLU):
            before = None
    return pairs


def _kept(alive: Array, *, exact: bool) -> Array:
    """Choose the units that stay, (K,) bool; at least one."""
    kept = alive.copy()
    blocks = [slice(first, first + DEPTH) for first in range(0, len(alive), DEPTH)]
    if exact:
        for block in [block for block in blocks if alive[block].any()][:-1]:
            kept[block] = True
    if not kept.any():
        kept[0] = True
    return kept


def _dense(layer: Layer) -> Dense:
    assert isinstance(layer, Dense)
    return layer


@surviving
def _compare(coordinator: Coordinator, before: Sequential, after: Sequential, x: Array | Rows) -> tuple[int, float]:
    """Count the outputs for x that have other bits, and find the largest difference."""
    with coordinator.replicas.for_a_call() as replicas:
        placement = Placement.of(replicas, len(x))
        samples = placement.samples(x, before.dtype)
        differences = replicas.zeros((placement.num_blocks, 2), np.float64)
        request = _Request(
            before=placement.model(before, samples),
            after=placement.model(after, samples),
            differences=differences.handles,
        )
        coordinator.run(_differences, request)
        changed, largest = differences.gather(placement.blocks).T
    return int(changed.sum()), float(largest.max())


@dataclass(frozen=True, kw_only=True)
class _Request:
    """differences: (blocks, 2) float64, gets the number of outputs with other bits and the largest difference."""

    before: ModelInput
    after: ModelInput
    differences: Handles


def _differences(world: World, request: _Request) -> None:
    """Compare the outputs of two models, block by block; collective."""
    before, x = request.before.attach(world)
    after, _ = request.after.attach(world)
    differences = world.node.attach(request.differences)
    run = PlainPass(training=False)
    bits = f"u{before.dtype.itemsize}"
    for block, rows in my_blocks(world, len(x)):
        old, new = (np.ascontiguousarray(model.forward(x[rows], run)) for model in (before, after))
        changed = old.view(bits) != new.view(bits)
        differences[block] = changed.sum(), np.abs(old - new)[changed].max(initial=0)

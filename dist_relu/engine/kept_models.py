"""Models that workers keep between calls, ready to compute, with the memory and the tapes of their passes.

What is asked again and again of a model, its outputs and how it does on a data set, finds it in the workers as it was
left there. What travels with a call are the model's parameters, and its description, which tells whether the workers
still have the same.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import final
from weakref import WeakKeyDictionary

import cloudpickle

from dist_relu.comm.shared_memory import Handles
from dist_relu.core.arrays import Array
from dist_relu.engine.forward import BlockPasses
from dist_relu.kernels.copies import copy
from dist_relu.nn import Loss, Pass, Sequential
from dist_relu.nn.description import are_same, is_ours
from dist_relu.nn.losses.loss import backward_into
from dist_relu.runtime.world import World

_MOST_KEPT_BYTES = 1 << 26
"""So large is what a worker may keep of a call. Where more is computed, it matters little to make it anew."""


@final
class Blueprints:
    """Models as they travel to workers: pickled once, and again when something of them has changed."""

    def __init__(self) -> None:
        self._pickled: WeakKeyDictionary[Sequential, tuple[Sequential, bytes]] = WeakKeyDictionary()

    def of(self, model: Sequential) -> bytes:
        """Return the model, unbuilt and without parameters."""
        blueprint, pickled = self._pickled.get(model, (None, b""))
        if blueprint is None or not are_same(blueprint.layers, model.layers):
            blueprint = model.blueprint()
            pickled = cloudpickle.dumps(blueprint)
            if is_ours(model.layers):  # classes of the user's own may change without a trace
                self._pickled[model] = blueprint, pickled
        return pickled


@final
@dataclass(frozen=True, kw_only=True)
class ForwardPasses:
    """This is what a worker passes forward with.

    blueprint: of the model, see `Blueprints`.  values: its parameters (P,).  loss: of what comes out; None where it is
    the outputs that are wanted.
    """

    blueprint: bytes
    input_shape: tuple[int, ...]
    values: Handles
    loss: Loss | None

    @contextmanager
    def attach(self, world: World) -> Iterator[BlockPasses]:
        """Return passes over blocks: those of an earlier call, if there are any.

        With a loss they take x, targets, sums and weights of a block, as `backward_into` has them, and the array that
        outputs go into where these are wanted, too; without one they take x and that array.

        A worker keeps those of the last model for each of the two purposes.
        """
        key = f"dist_relu {'outputs' if self.loss is None else 'evaluation'}"
        kept: _Kept | None = world.kept.pop(key, None)  # a call that fails leaves nothing
        if kept is None or kept.blueprint != self.blueprint or not are_same(kept.loss, self.loss):
            kept = self._make()
        kept.model.bind(world.node.attach(self.values))
        yield kept.passes
        size_bytes = kept.model.values.nbytes + kept.passes.size_bytes
        if kept.is_ours and size_bytes <= _MOST_KEPT_BYTES:
            kept.passes.let_go()
            world.kept[key] = kept

    def _make(self) -> _Kept:
        model: Sequential = pickle.loads(self.blueprint)
        model.build(self.input_shape)
        finish: Callable[..., None] = _put if self.loss is None else partial(_judge, self.loss)
        passes = BlockPasses(model, finish)
        return _Kept(self.blueprint, self.loss, model, passes, is_ours=is_ours([model.layers, self.loss]))


@dataclass(frozen=True)
class _Kept:
    """A worker keeps this of a call for the next one, where nothing of it is the user's own."""

    blueprint: bytes
    loss: Loss | None
    model: Sequential
    passes: BlockPasses
    is_ours: bool


def _judge(
    loss: Loss, outputs: Array, run: Pass, targets: Array, sums: Array, weights: Array, target: Array | None = None
) -> None:
    if target is not None:
        _put(outputs, run, target)
    d_outputs = run.empty(outputs.shape, outputs.dtype)
    backward_into(loss, outputs, targets, 1.0, d_outputs, sums, run, weights)


def _put(outputs: Array, run: Pass, target: Array) -> None:
    copy(outputs.reshape(-1), target.reshape(-1))

"""Passes over shards side by side, for models with sums over the whole batch.

Where a layer needs such a sum, no shard can go on before all have come as far, but a worker has several and one thread.
So each of its shards has a pass through a copy of the model, as a coroutine: it runs until it asks for a sum, and then
the next one does. When all stand there, the workers meet, and each pass goes on with the sum. Layers know nothing of
it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextvars import copy_context
from functools import partial
from typing import Any, Generic, TypeVar, final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.nn import Sequential
from dist_relu.nn.passes import UNEXPECTED_SUMS, Layout, ShardPass
from dist_relu.reduction.batch_sums import BatchSums

T = TypeVar("T")

PassOver = Callable[[int, Sequential, ShardPass], T]
"""(shard, model, run): pass over a shard, forward and backward, in this model, where the gradient stays."""


@final
class SideBySide(Generic[T]):
    """A worker's passes over its shards, all of which come as far as the next sum over the batch before any goes on.

    For every batch: `run`, and then `take` for each shard that has samples, in their order.
    """

    def __init__(
        self,
        model: Sequential,
        layout: Layout,
        arrays: Sequence[Array],
        seed: int,
        sums: BatchSums,
        shards: Sequence[int],
        first_shard: int = 0,
    ) -> None:
        """model: bound to the parameters; the first shard passes through it, the others through copies.

        layout, arrays, seed, first_shard: see `ShardPass`.  sums, shards: this worker's.
        """
        self._model, self._sizes, self._sums, self._shards = model, layout.sums, sums, shards
        self._passes: dict[int, tuple[Sequential, ShardPass]] = {}
        for shard in shards:
            own = model
            if self._passes:
                own = model.blueprint().build(model.input_shape)
                own.bind(model.values)
            run = ShardPass(layout, arrays, own.params, seed, self._sum_over_batch, first_shard=first_shard)
            self._passes[shard] = own, run
        self._summed = [number for number in range(len(model.params)) if number not in layout.products]
        self._size = -1  # of the sums that the passes have to ask for next; -1: none any more
        self._totals = np.empty(0)
        self._scheduler: Any = None  # the coroutine that `run` was called in
        self._results: dict[int, T] = {}

    def run(self, pass_over: PassOver[T], present: Collection[int]) -> None:
        """Pass over the shards in `present`, those of this worker that have samples; collective."""
        from greenlet import getcurrent, greenlet  # other models do without it

        self._follow(self._model)
        self._scheduler = getcurrent()
        coroutines = {shard: greenlet(partial(pass_over, shard, *self._passes[shard])) for shard in present}
        for coroutine in coroutines.values():
            coroutine.gr_context = copy_context()  # what is set around here, such as what NumPy warns of
        try:
            for number, size in enumerate(self._sizes):
                self._size = size
                self._sums.begin(number, size)
                for shard in self._shards:
                    if shard not in coroutines:
                        self._sums.rows[shard] = 0
                        continue
                    coroutines[shard].switch()
                    if coroutines[shard].dead:
                        raise RuntimeError(UNEXPECTED_SUMS)
                self._totals = self._sums.meet()
            self._size = -1
            self._results = {shard: coroutine.switch() for shard, coroutine in coroutines.items()}
        finally:
            for coroutine in coroutines.values():
                if coroutine:  # has begun and not ended: something was raised elsewhere
                    coroutine.throw()

    def take(self, shard: int) -> T:
        """Bring the gradient of a shard to where the model's belongs now; returns what `pass_over` has returned."""
        own, _ = self._passes[shard]
        if own is not self._model:
            for number in self._summed:
                np.copyto(self._model.params[number].grad, own.params[number].grad)
        return self._results[shard]

    def _follow(self, model: Sequential) -> None:
        """Let all copies compute with the parameters of the model, which steps move."""
        for own, _ in self._passes.values():
            for param, followed in zip(own.params, model.params, strict=True):
                param.places()["value"] = followed.value

    def _sum_over_batch(self, shard: int, values: Array) -> Array:
        """Wait within a pass until the passes over all other shards have come as far."""
        if values.size != self._size:
            raise RuntimeError(UNEXPECTED_SUMS)
        self._sums.rows[shard] = values.reshape(-1)
        self._scheduler.switch()
        return self._totals.reshape(values.shape).copy()

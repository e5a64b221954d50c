"""What a run is watched for, beside what it does: activations, gradients and changes of weights, step by step.

Workers note what they see in the passes over their own shards. When the run is over, it is added up in the order of
the shards; so the numbers depend on the shards, as the run itself does, and not on the workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import final

import numpy as np

from dist_relu.arrays import Array, as_rows, whole
from dist_relu.collectives.memory import Handles
from dist_relu.moments import NUM_MOMENTS, moments_of, put_together
from dist_relu.nn import Sequential
from dist_relu.nn.fusion import last_layers
from dist_relu.optim import Optimizer, Schedule
from dist_relu.partition import bounds
from dist_relu.replicas import Replica, Replicas
from dist_relu.worker import World


@final
@dataclass(frozen=True)
class Watch:
    """Which steps are watched: the first one, and then one of `every`."""

    every: int = 10

    def __post_init__(self) -> None:
        whole("Watch(every)", self.every)


@dataclass(frozen=True)
class WatchedLayer:
    """What came out of a layer in a step.

    Where layers are computed in one pass, as `Dense` and `ReLU` are, only the last of them is seen.
    sparsity: the share of exact zeros.  silent: how many of its units (places on the last axis) were 0 for every
    sample.  mean, variance: over all elements.
    """

    name: str
    num_units: int
    sparsity: float
    silent: int
    mean: float
    variance: float


@dataclass(frozen=True)
class WatchedParam:
    """A parameter in a step.

    gradient_norm: Euclidean, before anything is clipped.  update_ratio: the norm of its change over its own before
    the step; None where that was 0.
    """

    name: str
    gradient_norm: float
    update_ratio: float | None


@dataclass(frozen=True)
class WatchedStep:
    """A step, as it was seen.  loss, accuracy: means over its samples; accuracy is None without classes.

    lr: None for rules of your own without an `lr`.  With `accumulate`, layers are those of the step's first batch.
    """

    step: int
    epoch: int
    loss: float
    accuracy: float | None
    lr: float | None
    samples_per_second: float
    layers: list[WatchedLayer]
    params: list[WatchedParam]


@dataclass(frozen=True)
class WatchRequest:
    """What workers need to watch.  W watched steps.

    ends: for each pass through the model the number of its last layer.  active: (workers, W, bytes), a bit for each
    unit of all passes.  zeros: (workers, W, passes) int64.  moments: (shards, W, passes, NUM_MOMENTS).
    """

    watch: Watch
    active: Handles
    zeros: Handles
    moments: Handles


@final
class Watcher:
    """One worker's eyes."""

    def __init__(self, world: World, request: WatchRequest) -> None:
        self._every = request.watch.every
        self._active = world.node.attach(request.active)[world.rank]
        self._zeros = world.node.attach(request.zeros)[world.rank]
        self._moments = world.node.attach(request.moments)

    def watches(self, step: int) -> bool:
        return step % self._every == 0

    def seen_by(self, step: int, shard: int) -> Callable[[Sequence[Array]], None]:
        """What notes the outputs of all passes over a shard."""
        number = step // self._every

        def seen(outputs: Sequence[Array]) -> None:
            active = []
            for i, output in enumerate(outputs):
                rows = as_rows(output)
                nonzero = rows != 0
                active.append(nonzero.any(axis=0))
                self._zeros[number, i] += nonzero.size - np.count_nonzero(nonzero)
                self._moments[shard, number, i] = moments_of(rows)
            self._active[number] |= np.packbits(np.concatenate(active))

        return seen


@final
class WatchNotes:
    """The coordinator's side: makes the memory for a run, and reads it when the run is over."""

    def __init__(
        self, watch: Watch, replicas: Replicas, model: Sequential, num_steps: int, shards: int, workers: int
    ) -> None:
        assert model.input_shape is not None
        copy = model.blueprint().build(model.input_shape)
        self._ends = last_layers(copy.layers)
        self._names = [f"{end} {type(model.layers[end]).__name__}" for end in self._ends]
        self._shapes = [model.layer_shapes[end] for end in self._ends]
        self.param_names = model.names
        self.every = watch.every
        self._watch, self._shards, self._workers = watch, shards, workers
        num_watched = ceil(num_steps / watch.every)
        num_bytes = ceil(sum(shape[-1] for shape in self._shapes) / 8)
        self._replicas = replicas
        self._active = replicas.zeros((workers, num_watched, num_bytes), np.uint8)
        self._zeros = replicas.zeros((workers, num_watched, len(self._ends)), np.int64)
        self._moments = replicas.zeros((shards, num_watched, len(self._ends), NUM_MOMENTS), np.float64)

    @property
    def request(self) -> WatchRequest:
        return WatchRequest(self._watch, self._active.handles, self._zeros.handles, self._moments.handles)

    def layers(self, batch_sizes: Sequence[int]) -> list[list[WatchedLayer]]:
        """What was seen of each watched step.  batch_sizes: the samples of the step's first batch."""
        active = np.bitwise_or.reduce(self._collect(self._active, self._workers), axis=0)
        zeros = np.add.reduce(self._collect(self._zeros, self._workers), axis=0)
        moments = self._collect(self._moments, self._shards)
        steps = []
        for number, batch_size in enumerate(batch_sizes):
            samples = np.array([stop - first for first, stop in bounds(batch_size, self._shards)])
            units, stop, layers = np.unpackbits(active[number]), 0, []
            for i, (name, shape) in enumerate(zip(self._names, self._shapes, strict=True)):
                first, stop = stop, stop + shape[-1]
                with np.errstate(all="ignore"):  # a run may end with numbers that are none
                    total = put_together(moments[:, number, i], samples * prod(shape))
                silent = int(shape[-1] - units[first:stop].sum())
                sparsity = int(zeros[number, i]) / total.size
                layers.append(WatchedLayer(name, shape[-1], sparsity, silent, total.mean, total.variance))
            steps.append(layers)
        return steps

    def _collect(self, replica: Replica, parts: int) -> Array:
        """A row for each worker, or for each shard."""
        return replica.collect(self._replicas.rows_by_node([range(*part) for part in bounds(parts, self._workers)]))


def watched_params(names: Sequence[str], norms: Array) -> list[WatchedParam]:
    """norms: (3, params): of gradients, of parameters before the step, and of their changes; 0 for running means."""
    return [
        WatchedParam(name, gradient, change / before if before else None)
        for name, gradient, before, change in zip(names, *norms.tolist(), strict=True)
    ]


def learning_rate(optimizer: Optimizer, epoch: float) -> float | None:
    """That of an optimizer so many epochs after the start; None for one that has no `lr`."""
    lr = getattr(optimizer, "lr", None)
    return lr.at(epoch) if isinstance(lr, Schedule) else lr

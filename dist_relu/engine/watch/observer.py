"""What the coordinator makes of what workers report while they train."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from math import prod
from typing import assert_never, final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.engine.memory import means_of
from dist_relu.engine.plan import StepPlan
from dist_relu.engine.watch.events import EpochDone, Event, Progress, StepDone, StepsDone
from dist_relu.engine.watch.moments import combine_moments
from dist_relu.engine.watch.recorder import NUM_SLOTS, WatchRequest, row_dtype
from dist_relu.engine.watch.records import EpochSummary, Watch, WatchedLayer, WatchedParam, WatchedStep, in_words
from dist_relu.nn import Sequential
from dist_relu.nn.fusion import last_layers
from dist_relu.optim.rates import learning_rate
from dist_relu.partition import bounds
from dist_relu.runtime.replicated import ReplicatedArrays

_log = logging.getLogger(__name__)

ProgressHandler = Callable[[Progress], object]


@final
class Observer:
    """Hears of a run's progress, epochs and watched steps, and passes them on.

    epochs: all that are over.  watched: the steps, unless `Watch.on_step` gets them.  on_progress: whom progress is
    told.  optimizer: the one that takes the steps.
    """

    on_progress: ProgressHandler | None = None

    def __init__(
        self,
        model: Sequential,
        plan: StepPlan,
        per_epoch: int,
        watch: Watch | None = None,
        *,
        has_accuracy: bool,
    ) -> None:
        """per_epoch: the number of steps."""
        self.epochs: list[EpochSummary] = []
        self.watched: list[WatchedStep] = []
        self.optimizer = plan.optimizer
        self._plan, self._per_epoch, self._has_accuracy = plan, per_epoch, has_accuracy
        self._watch = watch
        self._param_names = model.names
        self._layers = _LayersSeen(model, plan) if watch else None

    def request(self, replicas: ReplicatedArrays, workers: int) -> WatchRequest | None:
        """What workers need to watch, in memory of the run."""
        if self._watch is None or self._layers is None:
            return None
        units = self._layers.units
        self._rows = replicas.zeros((NUM_SLOTS, self._plan.shards), row_dtype(units))
        self._active = replicas.zeros((workers, -(-sum(units) // 8)), np.uint8)
        return WatchRequest(every=self._watch.every, units=units, rows=self._rows.handles, active=self._active.handles)

    def hear(self, event: Event) -> None:
        """Take what a worker reported."""
        match event:
            case Progress():
                if self.on_progress:
                    self.on_progress(event)
            case StepsDone():
                for step in event.steps:
                    self._take_step(step)
            case EpochDone(progress=progress):
                if self.on_progress:
                    self.on_progress(progress)
                self._take_epoch(progress.epoch, progress.loss, progress.accuracy, event.steps, event.active)
            case _:
                assert_never(event)

    def note_epoch(self, number: int, steps: Array) -> None:
        """Note an epoch that is over, unless that was told.  steps: what they have come to, of `STEP_RECORD`."""
        if not self.epochs or self.epochs[-1].epoch < number:
            self._take_epoch(number, *means_of(steps), steps, None)

    def forget_epochs(self, first: int) -> None:
        """Take back all epochs from this number on."""
        self.epochs = [epoch for epoch in self.epochs if epoch.epoch < first]

    def take_watched(self) -> list[WatchedStep]:
        """Hand over the steps that were watched since the last time."""
        watched, self.watched = self.watched, []
        return watched

    def _take_step(self, seen: StepDone) -> None:
        assert self._watch is not None
        assert self._layers is not None
        step = WatchedStep(
            step=seen.step,
            epoch=seen.step // self._per_epoch,
            loss=seen.loss,
            accuracy=self._accuracy(seen.num_correct, seen.num_samples),
            lr=learning_rate(self.optimizer, (seen.step + 0.5) / self._per_epoch),
            samples_per_second=seen.num_samples / seen.seconds,
            layers=self._layers.take(seen.rows, min(seen.num_samples, self._plan.batch_size)),
            params=_params(self._param_names, seen.norms),
        )
        if self._watch.on_step:
            self._watch.on_step(step)
        else:
            self.watched.append(step)

    def _take_epoch(self, number: int, loss: float, accuracy: float, steps: Array, active: Array | None) -> None:
        epoch = EpochSummary(
            epoch=number,
            loss=loss,
            accuracy=accuracy if self._has_accuracy else None,
            seconds=float(steps["seconds"].sum()),
            dead=self._layers.dead(active) if self._layers and active is not None else None,
        )
        self.epochs.append(epoch)
        _log.info("Epoch %d: %s, %.3g s", epoch.epoch, in_words(epoch.loss, epoch.accuracy), epoch.seconds)
        if self._watch and self._watch.on_epoch:
            self._watch.on_epoch(epoch)

    def _accuracy(self, num_correct: int, num_samples: int) -> float | None:
        return num_correct / num_samples if self._has_accuracy else None


@final
class _LayersSeen:
    """Adds up the notes of all shards.  units: of each pass through the model, see `row_dtype`."""

    def __init__(self, model: Sequential, plan: StepPlan) -> None:
        ends = last_layers(model.blueprint().build(model.input_shape).layers)
        self._names = [f"{end} {type(model.layers[end]).__name__}" for end in ends]
        self._sizes = [prod(model.layer_shapes[end]) for end in ends]
        self.units = [model.layer_shapes[end][-1] for end in ends]
        self._stops = np.cumsum(self.units)[:-1]
        self._shards = plan.shards

    def take(self, rows: Array, batch_size: int) -> list[WatchedLayer]:
        """What was seen of a step.  rows: (shards,), of `row_dtype`.  batch_size: the samples that they tell of."""
        samples = np.array([stop - first for first, stop in bounds(batch_size, self._shards)])
        zeros, counts = np.add.reduce(rows["zeros"], axis=0), np.add.reduce(rows["counts"], axis=0)
        active = np.unpackbits(np.bitwise_or.reduce(rows["active"], axis=0), count=sum(self.units)).astype(np.bool)
        layers = []
        for i, (name, size, here) in enumerate(
            zip(self._names, self._sizes, np.split(active, self._stops), strict=True)
        ):
            with np.errstate(all="ignore"):  # a run may end with numbers that are none
                mean, variance = combine_moments(rows["mean"][:, i], rows["squares"][:, i], samples * size)
            layer = WatchedLayer(
                name=name,
                num_units=len(here),
                sparsity=int(zeros[i]) / (batch_size * size),
                silent=int(len(here) - here.sum()),
                mean=mean,
                variance=variance,
                preactivations=counts[i, :-1].tolist() if counts[i].any() else None,
            )
            layers.append(layer)
        return layers

    def dead(self, active: Array) -> dict[str, list[int]]:
        """The units of each layer that were not active in an epoch.  active: (units,), of all layers."""
        parts = np.split(active, self._stops)
        return {name: np.flatnonzero(~here).tolist() for name, here in zip(self._names, parts, strict=True)}


def _params(names: Sequence[str], norms: Array) -> list[WatchedParam]:
    """norms: (3, params): of gradients, of parameters before the step, and of their changes; 0 for running means."""
    return [
        WatchedParam(name=name, gradient_norm=gradient, update_ratio=change / before if before else None)
        for name, gradient, before, change in zip(names, *norms.tolist(), strict=True)
    ]

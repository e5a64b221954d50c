"""Every worker runs this loop: epoch after epoch, step after step."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, isfinite
from time import perf_counter
from typing import final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.engine.memory import StepRequest
from dist_relu.engine.step import TrainingStep
from dist_relu.engine.watch.events import EpochDone, Progress, StepDone, StepsDone
from dist_relu.partition import epoch_order
from dist_relu.runtime.world import World

_REPORT_EVERY_S = 0.1


@dataclass(frozen=True, kw_only=True)
class FitRequest:
    """This is everything that a worker must know to train."""

    step: StepRequest
    epochs: int
    shuffle: bool


@dataclass(frozen=True, kw_only=True)
class Trace:
    """A trace tells what happened, step by step.  loss: means over the samples.  num_correct: samples predicted right.

    generation: the one that holds the final parameters.  diverged: the loss of the last step was no number, and the
    step was not taken.
    """

    loss: Array
    num_correct: Array
    num_samples: Array
    seconds: Array
    generation: int
    diverged: bool


def num_steps_per_epoch(num_samples: int, batch_size: int, accumulate: int) -> int:
    """Count the steps of an epoch, whose last batch may be smaller, and whose last step may have fewer batches."""
    return ceil(num_samples / (batch_size * accumulate))


def fit(world: World, request: FitRequest) -> Trace:
    """Train; collective.  All workers return the same trace, but for the seconds.

    Worker 0 reports `Progress` and `StepsDone` several times a second, and each `EpochDone`.
    """
    run = _Run(world, request)
    diverged = not all(run.take_epoch(epoch) for epoch in range(request.epochs))
    return run.trace(diverged=diverged)


@final
class _Run:
    """A run takes a worker's steps, and keeps what they have come to."""

    def __init__(self, world: World, request: FitRequest) -> None:
        self._world = world
        self._request = request
        self._step = TrainingStep(world, request.step)
        plan = request.step.plan
        self._num_samples = len(self._step.x)
        self._per_step = plan.batch_size * plan.options.accumulate
        self._per_epoch = num_steps_per_epoch(self._num_samples, plan.batch_size, plan.options.accumulate)
        self._losses: list[float] = []
        self._num_correct: list[int] = []
        self._sizes: list[int] = []
        self._seconds: list[float] = []
        self._seen: list[StepDone] = []  # and not reported yet
        self._step.load_kernels()
        self._reported = perf_counter()

    def take_epoch(self, epoch: int) -> bool:
        """Take the steps of an epoch; returns whether all losses were numbers, otherwise the rest is left out."""
        order = epoch_order(self._num_samples, self._request.step.plan.seed, epoch, shuffle=self._request.shuffle)
        began = perf_counter()
        self._step.begin_epoch()
        for i in range(self._per_epoch):
            begin = perf_counter()
            samples = order[i * self._per_step : (i + 1) * self._per_step]
            number = epoch * self._per_epoch + i
            loss, num_correct = self._step.take(samples, number, (number + 0.5) / self._per_epoch)
            now = perf_counter()
            self._note(number, loss, num_correct, len(samples), now - begin)
            has_diverged = not isfinite(loss)
            is_time = now - self._reported > _REPORT_EVERY_S or i == self._per_epoch - 1 or has_diverged
            if is_time and self._world.rank == 0:
                self._report(epoch, i + 1, now - began)
                self._reported = now
            if has_diverged:
                return False
        active = self._step.end_epoch()
        if self._world.rank == 0:
            last = slice(-self._per_epoch, None)
            self._world.report(
                EpochDone(
                    active=active,
                    loss=np.array(self._losses[last]),
                    num_correct=np.array(self._num_correct[last]),
                    num_samples=np.array(self._sizes[last]),
                    seconds=np.array(self._seconds[last]),
                )
            )
        return True

    def trace(self, *, diverged: bool) -> Trace:
        return Trace(
            loss=np.array(self._losses),
            num_correct=np.array(self._num_correct),
            num_samples=np.array(self._sizes),
            seconds=np.array(self._seconds),
            generation=self._step.generation,
            diverged=diverged,
        )

    def _note(self, number: int, loss: float, num_correct: int, size: int, seconds: float) -> None:
        """Note what the last step has come to.  size: its samples."""
        self._losses.append(loss)
        self._num_correct.append(num_correct)
        self._sizes.append(size)
        self._seconds.append(seconds)
        if self._step.notes is not None:
            self._seen.append(
                StepDone(
                    step=number,
                    loss=loss,
                    num_correct=num_correct,
                    num_samples=size,
                    seconds=seconds,
                    rows=self._step.notes,
                    norms=self._step.norms,
                )
            )

    def _report(self, epoch: int, num_taken: int, seconds: float) -> None:
        """Tell the coordinator how far training is.  num_taken: the steps of this epoch.  seconds: that they took."""
        losses, num_correct, sizes = (
            numbers[-num_taken:] for numbers in (self._losses, self._num_correct, self._sizes)
        )
        progress = Progress(
            epoch=epoch,
            step=len(self._losses),
            num_steps=self._request.epochs * self._per_epoch,
            loss=float(np.average(losses, weights=sizes)),
            accuracy=sum(num_correct) / sum(sizes),
            samples_per_second=sum(sizes) / seconds,
        )
        self._world.report(progress)
        if self._seen:
            self._world.report(StepsDone(steps=self._seen))
            self._seen = []

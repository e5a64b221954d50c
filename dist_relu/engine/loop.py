"""Every worker runs this loop: step after step, epoch after epoch, as far as the coordinator says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, isfinite
from time import perf_counter
from typing import final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.engine.memory import StepRequest, means_of
from dist_relu.engine.step import TrainingStep
from dist_relu.engine.tracing import Tracer, TraceRequest, WorkerTrace
from dist_relu.engine.verification import Digest
from dist_relu.engine.watch.events import EpochDone, Progress, StepDone, StepsDone
from dist_relu.engine.weighting import order_of_epoch
from dist_relu.optim import Optimizer
from dist_relu.runtime.world import World

MAX_SKIPPED = 100
"""So many steps one after another may be skipped; a run that has come there will hardly find back."""
_REPORT_EVERY_S = 0.1
_LOOK_EVERY_S = 0.02
"""How long steps may go on without the interpreter, which handles signals."""


@dataclass(frozen=True, kw_only=True)
class SegmentRequest:
    """A segment of a run is what workers do without asking: the steps from number `first` to `stop` - 1.

    run: the number of the run; workers keep what they have made for it until the next run, or till `forget_run`.
    setup: where workers have nothing of this run yet.
    last: the step before which the whole call ends.  optimizer: in place of the plan's, of the same kind.
    num_skipped: how many steps right before the first one were skipped.  trace: None for a segment that is not traced.
    """

    run: int
    setup: StepRequest | None
    first: int
    stop: int
    last: int
    shuffle: bool
    optimizer: Optimizer
    num_skipped: int = 0
    trace: TraceRequest | None = None


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """The steps of a segment ended before its end, since the loss of the next one was no number.  It was not taken.

    num_skipped: 0, or so many steps one after another were skipped, which are too many.
    of_parameters: it was not the loss, but the parameters behind that step.
    """

    loss: float
    num_skipped: int = 0
    of_parameters: bool = False


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A worker replies what became of a segment.

    digests: of the shards that were verified, see `Verifier`.  trace: None if it was not traced.
    """

    stopped: Stopped | None
    digests: Sequence[Digest]
    trace: WorkerTrace | None


class NotKept:
    """A worker replies that it has nothing of this run, and needs its setup."""


def num_steps_per_epoch(num_samples: int, batch_size: int, accumulate: int) -> int:
    """Count the steps of an epoch, whose last batch may be smaller, and whose last step may have fewer batches."""
    return ceil(num_samples / (batch_size * accumulate))


def take_segment(world: World, request: SegmentRequest) -> Taken | NotKept:
    """Take the steps of a segment; collective.  All workers return the same, but for digests.

    Worker 0 reports `Progress` and `StepsDone` several times a second, and each `EpochDone`.
    """
    run = world.kept.pop(request.run, None)  # a segment that fails leaves nothing that could be gone on with
    if request.setup is not None:
        world.kept.clear()
        run = _Run(world, request.setup)
    if run is None:
        return NotKept()
    stopped, trace = run.take(request)
    if stopped is None:
        if world.progress_engine:
            world.progress_engine.settle()
        world.kept[request.run] = run
    return Taken(stopped=stopped, digests=run.take_digests(), trace=trace)


def forget_run(world: World, run: int) -> None:
    """Let go of what was kept for a run."""
    world.kept.pop(run, None)


@final
class _Run:
    """A run takes a worker's steps, and knows what those of the present epoch have come to."""

    def __init__(self, world: World, request: StepRequest) -> None:
        self._world = world
        self._step = TrainingStep(world, request)
        self._plan = plan = request.plan
        self._num_samples = len(self._step.samples)
        self._per_step = plan.batch_size * plan.options.accumulate
        self._per_epoch = num_steps_per_epoch(self._num_samples, plan.batch_size, plan.options.accumulate)
        self._epoch = -1
        self._order_of = lru_cache(2)(self._order_anew)  # this epoch's, and the next one's where it is read ahead
        self._seen: list[StepDone] = []  # and not reported yet
        self._step_s = _LOOK_EVERY_S  # how long a step has taken
        self._tracer = Tracer(world)
        self._step.load_kernels()

    def take(self, request: SegmentRequest) -> tuple[Stopped | None, WorkerTrace | None]:
        """Take the steps of a segment; returns what has stopped them, and what was traced of them."""

        def samples_of(step: int) -> Array:
            epoch, place = divmod(step, self._per_epoch)
            order: Array = self._order_of(epoch, request.shuffle)
            return order[place * self._per_step : (place + 1) * self._per_step]

        with self._tracer.tracing(request.trace), self._step.ahead(range(request.first, request.stop), samples_of):
            self._step.trace(self._tracer.marks, self._tracer.detail)
            stopped = self._take(request)
            return stopped, self._tracer.take(is_played=self._step.is_played)

    def _take(self, request: SegmentRequest) -> Stopped | None:
        self._step.optimizer = request.optimizer
        self._reported = self._began = perf_counter()
        self._first_timed = request.first
        num_skipped, step = request.num_skipped, request.first
        while step < request.stop:
            epoch, place = divmod(step, self._per_epoch)
            if epoch != self._epoch:
                self._begin_epoch(epoch, shuffle=request.shuffle)
            steps = self._next_steps(step, min(request.stop, (epoch + 1) * self._per_epoch))
            samples = self._order[place * self._per_step : (place + len(steps)) * self._per_step]
            begin = perf_counter()
            loss = self._step.take(steps, samples, [(number + 0.5) / self._per_epoch for number in steps])
            now = perf_counter()
            self._step_s = (now - begin) / len(steps)
            num_skipped = 0 if isfinite(loss) else num_skipped + 1
            if num_skipped and not self._plan.options.skips:
                self._tell_of_watched()
                return Stopped(loss=loss)
            if seen := self._step.seen(step):
                self._seen.append(seen)
            step = steps.stop
            ends_epoch = step % self._per_epoch == 0
            if ends_epoch:
                self._end_epoch(request.last)
                self._reported = now
            elif step == request.stop or now - self._reported > _REPORT_EVERY_S:
                self._report(step - 1, request.last)
                self._reported = now
            if num_skipped >= MAX_SKIPPED:
                self._report(step - 1, request.last)
                return Stopped(loss=loss, num_skipped=num_skipped)
        return None

    def _next_steps(self, first: int, stop: int) -> range:
        """Choose the steps to take at once: as many as there is time for until the next look at the world.

        A step that is watched, or may be skipped, comes alone.
        """
        if self._plan.options.skips or self._step.is_watched(first):
            return range(first, first + 1)
        num_steps = min(stop - first, self._step.max_steps, max(int(_LOOK_EVERY_S / self._step_s), 1))
        watched = (step for step in range(first, first + num_steps) if self._step.is_watched(step))
        return range(first, next(watched, first + num_steps))

    def take_digests(self) -> Sequence[Digest]:
        """See `TrainingStep.take_digests`."""
        return self._step.take_digests()

    def _begin_epoch(self, epoch: int, *, shuffle: bool) -> None:
        self._epoch = epoch
        self._order: Array = self._order_of(epoch, shuffle)
        self._began, self._first_timed = perf_counter(), epoch * self._per_epoch
        self._step.begin_epoch()

    def _order_anew(self, epoch: int, shuffle: bool) -> Array:
        """The samples of an epoch in their order."""
        seed, chances = self._plan.seed, self._step.chances
        return order_of_epoch(self._num_samples, seed, epoch, shuffle=shuffle, chances=chances)

    def _end_epoch(self, last: int) -> None:
        """Tell the coordinator what an epoch has come to, in one message, since epochs may be short; collective."""
        active = self._step.end_epoch()
        if self._world.rank == 0:
            steps = self._records(self._epoch * self._per_epoch, (self._epoch + 1) * self._per_epoch)
            self._tell_of_watched()
            self._world.report(EpochDone(progress=self._progress(steps, last), active=active, steps=steps))

    def _records(self, first: int, stop: int) -> Array:
        """What steps of this epoch have come to, of `STEP_RECORD`."""
        records = self._step.records
        return records[np.arange(first, stop) % len(records)]

    def _report(self, step: int, last: int) -> None:
        """Tell the coordinator how far training is, if this is worker 0.  last: the step before which the call ends."""
        if self._world.rank != 0:
            return
        so_far = self._records(step - step % self._per_epoch, step + 1)
        self._world.report(self._progress(so_far, last))
        self._tell_of_watched()

    def _progress(self, so_far: Array, last: int) -> Progress:
        """How far training is.  so_far: what the steps of this epoch have come to.  last: as in `_report`."""
        first = self._epoch * self._per_epoch
        loss, accuracy = means_of(so_far)
        num_timed = so_far["num_samples"][self._first_timed - first :].sum()
        return Progress(
            epoch=self._epoch,
            step=first + len(so_far),
            num_steps=last,
            loss=loss,
            accuracy=accuracy,
            samples_per_second=float(num_timed / (perf_counter() - self._began)),
        )

    def _tell_of_watched(self) -> None:
        if self._seen:
            self._world.report(StepsDone(steps=self._seen))
            self._seen = []

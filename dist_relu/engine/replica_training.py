"""Training of replicas, on the coordinator's side: part after part, each of which counts when it has gone well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from math import nan
from time import monotonic
from typing import final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.data import Dataset
from dist_relu.data.augment import ImageShape
from dist_relu.engine.kept_run import KeptRun
from dist_relu.engine.loop import Stopped, num_steps_per_epoch
from dist_relu.engine.memory import STEP_RECORD, Snapshot, means_of
from dist_relu.engine.plan import StepPlan
from dist_relu.engine.replica_memory import ReplicaVectors, prepare_replicas
from dist_relu.engine.replica_steps import MOST_STEPS, PartRequest, PartTaken, take_part
from dist_relu.engine.site import Site
from dist_relu.engine.tracing import TraceRequest, WorkerTrace
from dist_relu.engine.watch.events import EpochDone, Progress, StepsDone
from dist_relu.engine.watch.observer import Observer
from dist_relu.engine.weighting import chances, loss_weights
from dist_relu.errors import BackendError
from dist_relu.nn import Sequential
from dist_relu.optim import Optimizer

_LOOK_EVERY_S = 0.2
"""How long a part may take, about: so often it is told how far the run is, and so late a run may end at most."""
_FIRST_STEPS = 4
"""Of a part whose steps nobody has timed yet."""
_REPORT_EVERY_S = 0.1


@final
class ReplicaTraining:
    """A run of replicas whose vectors lie in the nodes' memory, from a snapshot on, with the methods of `Training`.

    step: the number of steps that are complete.  max_steps: the longest segment.  traces: none.
    """

    traces: Sequence[WorkerTrace] = ()

    def __init__(
        self,
        site: Site,
        model: Sequential,
        data: Dataset,
        plan: StepPlan,
        observer: Observer,
        begin: Snapshot,
        *,
        image_shape: ImageShape | None,
        records: Array,
        shuffle: bool,
    ) -> None:
        """image_shape: of samples that are augmented.  records: of the steps of the present epoch.

        Raises MemoryError where there is no room for so many replicas.
        """
        assert plan.averaging
        self._site, self._observer, self._shuffle = site, observer, shuffle
        self._round = plan.averaging.steps
        self._per_epoch = num_steps_per_epoch(len(data), plan.batch_size, plan.options.accumulate)
        self.step, self.max_steps = begin.step, self._per_epoch
        self._records = records  # from the beginning of the epoch on in which the last call of `advance` began
        self._seconds_per_step: float | None = None
        self._next_report_s = 0.0
        self._run = run = KeptRun(site, model, data, plan.loss)
        self._vectors = ReplicaVectors(run.replicas, model, plan, begin)
        self._memory, self._setup = prepare_replicas(
            run.replicas,
            model,
            run.placed,
            plan,
            self._vectors,
            weights=loss_weights(data, plan.class_weight, plan.sampler),
            chances=chances(data, plan.class_weight, plan.sampler),
            image_shape=image_shape,
            watch=observer.request(run.replicas, 1),
        )

    def advance(
        self,
        first: int,
        stop: int,
        optimizer: Optimizer,
        *,
        last: int,
        num_skipped: int = 0,
        trace: TraceRequest | None = None,
    ) -> Stopped | None:
        """Take the steps from number `first` to `stop` - 1, part after part; returns what has stopped them before.

        last: where the user's call ends.  num_skipped: 0, since replicas skip none.  trace: nothing.
        """
        assert (first, num_skipped, trace) == (self.step, 0, None)
        self._records, self._last = self.records(first - first % self._per_epoch, first), last
        while self.step < stop:
            end = min(stop, self._end_of_part())
            began = monotonic()
            replies = self._take(end, optimizer)
            if not _went_well(replies):
                return self._stopped(replies, end, optimizer)
            self._seconds_per_step = (monotonic() - began) / (end - self.step)
            self._complete(replies, end)
            self._report(is_end=end == stop)
        return None

    def records(self, first: int, stop: int) -> Array:
        """What these steps have come to, of `STEP_RECORD`: steps of the last `advance`, or of the epoch it began in."""
        begin = self.step - len(self._records)
        return self._records[first - begin : stop - begin]

    @property
    def lies_elsewhere(self) -> bool:
        """Tell whether some of the vectors are on other nodes alone, and lost with them."""
        return self._site.replicas.coordinator_node is None or self._site.replicas.num_nodes > 1

    def snapshot(self) -> Snapshot:
        """Copy all vectors after the last complete step."""
        return Snapshot(step=self.step, vectors=self._vectors.copy(self.step))

    def finite_snapshot(self) -> Snapshot | None:
        """Do as `snapshot`, and return None where that is out of reach; no part counts that leads to no numbers."""
        try:
            return self.snapshot()
        except BackendError:
            return None

    def values(self) -> Array:
        """The mean of the replicas' parameters (P,) after the last complete step."""
        return self._vectors.mean(self.step)

    def close(self) -> None:
        """Free the memory of the run on all nodes."""
        self._run.close()

    def abandon(self, error: BaseException) -> None:
        """Leave the memory to workers that may be stuck in a part; it is freed behind that."""
        self._run.abandon(error)

    def _end_of_part(self) -> int:
        """Before which step a part ends that begins now: that of the next average, or one that does not take long."""
        num_steps = _FIRST_STEPS
        if self._seconds_per_step:
            num_steps = min(max(int(_LOOK_EVERY_S / self._seconds_per_step), 1), MOST_STEPS)
        return min(self.step - self.step % self._round + self._round, self.step + num_steps)

    def _take(self, stop: int, optimizer: Optimizer) -> list[PartTaken]:
        """Let workers take the part up to a step; it does not count yet."""
        request = PartRequest(
            run=self._run.number,
            setup=self._setup,
            first=self.step,
            stop=stop,
            half=self._vectors.half,
            shuffle=self._shuffle,
            optimizer=optimizer,
        )
        return self._run.take(take_part, request)

    def _stopped(self, replies: Sequence[PartTaken], stop: int, optimizer: Optimizer) -> Stopped:
        """Say what stops a part up to `stop`, which has not gone well, and take it as far as it goes."""
        stops = [reply.stopped for reply in replies if reply.stopped]
        farthest, loss = min(stops, default=(stop - 1, nan))
        good, bad, middle = self.step, farthest + 1, farthest
        while bad - good > 1:
            if _went_well(self._take(middle, optimizer)):
                good = middle
            else:
                bad = middle
            middle = (good + bad) // 2
        if good > self.step:
            self._complete(self._take(good, optimizer), good)  # whatever the last one that was tried has left behind
        return Stopped(loss=loss, of_parameters=good < farthest or not stops)

    def _complete(self, replies: Sequence[PartTaken], stop: int) -> None:
        """Let a part count up to a step."""
        records = _together(np.concatenate([reply.records for reply in replies]))
        records["seconds"] = self._seconds_per_step or nan
        self._records = np.concatenate([self._records, records])
        self._vectors.half = 1 - self._vectors.half
        epochs = range(self.step // self._per_epoch, stop // self._per_epoch)
        self.step = stop
        if replies[0].watched:
            self._observer.hear(StepsDone(steps=replies[0].watched))
        for epoch in epochs:
            steps = self.records(epoch * self._per_epoch, (epoch + 1) * self._per_epoch)
            progress = self._progress((epoch + 1) * self._per_epoch)
            self._observer.hear(EpochDone(progress=progress, active=replies[0].active[epoch], steps=steps))

    def _report(self, *, is_end: bool) -> None:
        """Tell from time to time how far training is."""
        if monotonic() < self._next_report_s and not is_end:
            return
        progress = self._progress(self.step)
        self._site.workers.board.note(progress=asdict(progress))
        if self.step % self._per_epoch:  # otherwise that was told with the epoch
            self._observer.hear(progress)
        self._next_report_s = monotonic() + _REPORT_EVERY_S

    def _progress(self, step: int) -> Progress:
        """How far training is after so many steps."""
        epoch, place = divmod(step - 1, self._per_epoch)
        so_far = self.records(step - 1 - place, step)
        loss, accuracy = means_of(so_far)
        return Progress(
            epoch=epoch,
            step=step,
            num_steps=self._last,
            loss=loss,
            accuracy=accuracy,
            samples_per_second=float(so_far["num_samples"][-1] / so_far["seconds"][-1]),
        )


def _went_well(replies: Sequence[PartTaken]) -> bool:
    return all(reply.is_finite and not reply.stopped for reply in replies)


def _together(records: Array) -> Array:
    """What steps have come to, (steps,), from what each replica's have, (replicas, steps)."""
    together = np.zeros(records.shape[1], STEP_RECORD)
    together["num_samples"] = records["num_samples"].sum(axis=0)
    together["num_correct"] = records["num_correct"].sum(axis=0)
    for of_replica in records:  # in their order, however many steps there are
        together["loss"] += of_replica["loss"] * (of_replica["num_samples"] / together["num_samples"])
    return together

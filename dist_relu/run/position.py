"""Where a run stands: after which step, with which vectors, and whether they lie in the nodes' memory at present."""

from __future__ import annotations

from dataclasses import replace
from typing import final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.data import Dataset
from dist_relu.data.augment import ImageShape
from dist_relu.engine.loop import Stopped, num_steps_per_epoch
from dist_relu.engine.memory import Snapshot
from dist_relu.engine.plan import StepPlan
from dist_relu.engine.replica_training import ReplicaTraining
from dist_relu.engine.replicas import check_replicas
from dist_relu.engine.site import Site
from dist_relu.engine.training import Training
from dist_relu.engine.verification import MAX_VERIFIED, num_verified
from dist_relu.engine.watch.observer import Observer
from dist_relu.errors import BackendError, FaultyWorker, WorkerLost
from dist_relu.nn import Sequential
from dist_relu.optim import Optimizer
from dist_relu.partition import check_fit
from dist_relu.run.history import History
from dist_relu.run.tracing.log import TraceLog

_LOST = "What this run had come to is lost with the workers that held it. Resume it from a state."


@final
class Position:
    """Goes forward with a run, and a step back where that has led nowhere.

    step: how many steps are complete.  history: what they have come to.  observer: hears of them.
    """

    def __init__(
        self,
        site: Site,
        model: Sequential,
        data: Dataset,
        plan: StepPlan,
        observer: Observer,
        *,
        shuffle: bool,
        image_shape: ImageShape | None,
        verify_every: int | None,
        trace: TraceLog | None = None,
    ) -> None:
        """Begin with the parameters of the model, before the first step."""
        self.step, self.history, self.observer = 0, History(), observer
        self._site, self._model, self._data, self._plan = site, model, data, plan
        self._shuffle, self._image_shape, self._verify_every = shuffle, image_shape, verify_every
        self._trace = trace
        self._per_epoch = num_steps_per_epoch(len(data), plan.batch_size, plan.options.accumulate)
        # The vectors are in one of these, or in none where they are lost.
        self._training: Training | ReplicaTraining | None = None
        self._snapshot: Snapshot | None = Snapshot.initial(model.values, plan)
        self._copy: Snapshot | None = None  # of what lies on other nodes only
        self._generation = 0  # of the workers who have the memory

    def set(self, snapshot: Snapshot, records: Array) -> None:
        """Stand somewhere else.  records: of all steps until there."""
        self.close()
        self.step, self.history, self._snapshot = snapshot.step, History(records), snapshot

    def cut_into(self, bucket_bytes: int) -> None:
        """Let messages between nodes be of about this size from now on."""
        self.close()
        self._plan = replace(self._plan, bucket_bytes=bucket_bytes)

    @property
    def is_lost(self) -> bool:
        return self._live is None and self._snapshot is None

    def advance(self, stop: int, optimizer: Optimizer, *, last: int) -> Stopped | None:
        """Let workers take the steps up to number `stop`, or as many as one segment has, or until some are lost.

        last: where the user's call ends.  Returns what has stopped them before.  An exception leaves the run after the
        last complete step, and its memory to workers that may be stuck in it; but FaultyWorker where it was before.
        Where workers are lost it stands there as well, and goes on with others the next time.
        """
        first, workers = self.step, self._site.workers
        workers.adapt(self._plan.most_workers)
        try:
            return self._advance(stop, optimizer, last=last)
        except WorkerLost:
            if self.step > first:
                workers.note_progress()
            if self.is_lost:
                raise
            workers.recover(self.step)
            return None

    def _advance(self, stop: int, optimizer: Optimizer, *, last: int) -> Stopped | None:
        training = self._live or self._start()
        stop = min(stop, self.step + training.max_steps)
        before = None
        if self._verify_every is not None:
            stop = min(stop, self.step + MAX_VERIFIED * self._verify_every)
            if num_verified(self.step, stop, self._verify_every):
                before = training.snapshot()
        num_skipped = self.history.num_skipped if self._plan.options.skips else 0
        request = None
        if self._trace:
            stop, request = self._trace.begin_segment(self.step, stop, self.history.seconds_per_step())
        try:
            stopped = training.advance(self.step, stop, optimizer, last=last, num_skipped=num_skipped, trace=request)
        except FaultyWorker as error:
            self._back_to(before, self.step)
            error.args = (
                f"{error} The run stands before step {self.step} again, where all that was verified had agreed; what "
                "was not may be wrong all the same. Go on from there, or from an earlier state, without that machine.",
            )
            raise
        except BaseException as error:
            if isinstance(error, WorkerLost) and before is not None:
                self._training, self._snapshot = None, before  # what was to be verified was not
                self.observer.forget_epochs(self.step // self._per_epoch)
            else:
                self._fall_back()
            training.abandon(error)
            raise
        if training.lies_elsewhere:
            self._copy = training.snapshot()
        if self._trace and request and not stopped:
            workers, replicas = self._site.workers, self._site.replicas
            self._trace.end_segment(training.traces, workers.peers, replicas.nodes, replicas.coordinator_node)
        self._note(training, training.step)
        return stopped

    def vectors(self) -> Snapshot:
        """Copy all vectors.  Raises BackendError when they are lost."""
        if training := self._live:
            return training.snapshot()
        if self._snapshot is None:
            raise BackendError(_LOST)
        return replace(self._snapshot, vectors=self._snapshot.vectors.copy())

    def bring_up_to_date(self, model: Sequential) -> None:
        """Give the model the parameters, unless they are lost."""
        if training := self._live:
            model.values = training.values()
        elif self._snapshot:
            model.values = self._snapshot.vectors[0]

    def is_finite(self) -> bool:
        """Whether the last step led to parameters that are numbers."""
        training = self._live
        return training is None or bool(np.isfinite(training.values()).all())

    def step_back(self) -> None:
        """Stand before the last step, if the parameters were numbers there; otherwise all is lost."""
        assert self._training
        self._back_to(self._training.finite_snapshot(), self.step - 1)

    def uncount_last(self) -> None:
        """Stand before the last step, which was skipped, so that nothing else changes."""
        assert self._training
        self._back_to(replace(self._training.snapshot(), step=self.step - 1), self.step - 1)

    def close(self) -> None:
        """Free the memory of the run on all nodes; to go forward makes it anew."""
        if training := self._live:
            self._snapshot, self._training = training.snapshot(), None
            training.close()

    @property
    def _live(self) -> Training | ReplicaTraining | None:
        """What holds the vectors, if it is the present workers that do: when they have become others, it is left."""
        if self._training and self._generation != self._site.workers.generation:
            training = self._training
            self._fall_back()
            training.abandon(BackendError("The workers have become others."))
        return self._training

    def _fall_back(self) -> None:
        """Leave the memory of the run with what can be had of it: the vectors after the last complete step.

        Where no worker shares the coordinator's memory, those after the last segment.
        """
        assert self._training
        training, self._training = self._training, None
        self._snapshot = training.finite_snapshot()
        if self._snapshot:
            self._note(training, self._snapshot.step)
        elif self._copy and self._copy.step == self.step:
            self._snapshot = self._copy
        self._copy = None

    def _start(self) -> Training | ReplicaTraining:
        """Bring the run into the memory of the nodes."""
        if self._snapshot is None:
            raise BackendError(_LOST)
        check_fit(len(self._data), self._plan.batch_size, self._plan.shards, self._site.num_workers)
        check_replicas(self._plan, self._site.num_workers)
        training = self._training_from(self._snapshot)
        if training.lies_elsewhere:
            self._copy = self._snapshot
        self._training, self._snapshot, self._generation = training, None, self._site.workers.generation
        if self._trace:
            self._trace.begin_anew()
        return training

    def _training_from(self, begin: Snapshot) -> Training | ReplicaTraining:
        """Make what holds the vectors from now on."""
        run = self._site, self._model, self._data, self._plan, self.observer, begin
        records = self.history.records[self.step - self.step % self._per_epoch :]
        if self._plan.averaging:
            return ReplicaTraining(*run, image_shape=self._image_shape, records=records, shuffle=self._shuffle)
        return Training(
            *run,
            image_shape=self._image_shape,
            records=records,
            shuffle=self._shuffle,
            verify_every=self._verify_every,
        )

    def _note(self, training: Training | ReplicaTraining, step: int) -> None:
        """Note what was done since the last time.  step: how many are complete."""
        self.history.append(training.records(self.step, step))
        epochs = range(self.step // self._per_epoch, step // self._per_epoch)
        self.step = step
        for epoch in epochs:  # of which a worker that was lost has not told any more
            self.observer.note_epoch(epoch, self.history.records[epoch * self._per_epoch :][: self._per_epoch])

    def _back_to(self, snapshot: Snapshot | None, step: int) -> None:
        """Stand before a step again.  snapshot: None where the vectors are lost."""
        assert self._training
        self._training.close()
        self._training, self._snapshot = None, snapshot
        self.step = step
        self.history.cut(self.step)
        self.observer.forget_epochs(self.step // self._per_epoch)

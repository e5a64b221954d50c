"""Training, on the coordinator's side: a run has its memory on the nodes, and workers take its steps in segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from time import monotonic
from typing import Any, final

from dist_relu.core.arrays import Array
from dist_relu.data import Dataset
from dist_relu.data.augment import ImageShape
from dist_relu.engine.arguments import predicts
from dist_relu.engine.kept_run import KeptRun
from dist_relu.engine.loop import SegmentRequest, Stopped, num_steps_per_epoch, take_segment
from dist_relu.engine.memory import Snapshot, StepMemory
from dist_relu.engine.plan import LeaveGradient, StepOptions, StepPlan
from dist_relu.engine.site import Site
from dist_relu.engine.tracing import TraceRequest, WorkerTrace
from dist_relu.engine.verification import check_digests
from dist_relu.engine.watch.events import EpochDone, Progress
from dist_relu.engine.watch.observer import Observer
from dist_relu.engine.weighting import chances, loss_weights
from dist_relu.nn import Loss, Sequential
from dist_relu.optim import Optimizer

_MORE_RECORDS = 4096
"""Steps beyond an epoch whose records are kept, so that segments of small data sets may go over many epochs."""

_NOTE_EVERY_S = 0.2
"""How often it is noted where the run stands, for `dist-relu status`."""


@final
class Training:
    """A run whose vectors lie in the nodes' memory, from a snapshot on; going on from there copies nothing.

    max_steps: the longest segment.  traces: of the last segment, by rank; none if it was not traced.
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
        image_shape: ImageShape | None = None,
        records: Array | None = None,
        shuffle: bool = False,
        verify_every: int | None = None,
    ) -> None:
        """image_shape: of samples that are augmented.  records: of the steps of the present epoch.

        verify_every: see `verified_shard`.  Raises ValueError where no shard can be verified.
        """
        self._site, self._observer, self._shuffle = site, observer, shuffle
        self._progress: Progress | None = None  # which others don't see yet
        self._next_note_s = 0.0
        per_epoch = num_steps_per_epoch(len(data), plan.batch_size, plan.options.accumulate)
        self.max_steps = max(per_epoch, _MORE_RECORDS)
        self._run = run = KeptRun(site, model, data, plan.loss)
        watch = observer.request(run.replicas, run.replicas.nodes[-1].stop)
        self._memory = StepMemory(
            run.replicas,
            model,
            run.placed,
            plan,
            begin,
            weights=loss_weights(data, plan.class_weight, plan.sampler),
            chances=chances(data, plan.class_weight, plan.sampler),
            records=records,
            num_records=per_epoch + self.max_steps,
            is_watched=watch is not None,
        )
        self._setup = self._memory.request(watch, image_shape, verify_every)

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
        """Take the steps from number `first` to `stop` - 1; returns what has stopped them before.

        last: where the user's call ends.  num_skipped: how many steps right before the first one were skipped.
        trace: None if they are not traced.
        Raises FaultyWorker when all steps are taken, but a shard that was verified has different digests.
        """
        request = SegmentRequest(
            run=self._run.number,
            setup=self._setup,
            first=first,
            stop=stop,
            last=last,
            shuffle=self._shuffle,
            optimizer=optimizer,
            num_skipped=num_skipped,
            trace=trace,
        )
        replies = self._run.take(take_segment, request, self._hear)
        self._note_progress()
        self.traces = [reply.trace for reply in replies] if trace else ()
        check_digests([reply.digests for reply in replies], self._site.workers.peers)
        stopped: Stopped | None = replies[0].stopped
        return stopped

    @property
    def step(self) -> int:
        """The number of steps that are complete."""
        return self._memory.num_completed()

    @property
    def lies_elsewhere(self) -> bool:
        """Tell whether some of the vectors are on other nodes alone, and lost with them."""
        return self._site.replicas.coordinator_node is None

    def records(self, first: int, stop: int) -> Array:
        """What these steps have come to, at most `max_steps`, of `STEP_RECORD`."""
        return self._memory.records(first, stop)

    def snapshot(self) -> Snapshot:
        """Copy all vectors after the last complete step."""
        return self._memory.snapshot()

    def finite_snapshot(self) -> Snapshot | None:
        """See `StepMemory.finite_snapshot`."""
        return self._memory.finite_snapshot()

    def put(self, values: Array) -> None:
        """Let the next step begin with these parameters (P,)."""
        self._memory.put(values)

    def values(self) -> Array:
        """The parameters (P,) after the last complete step, and as long as no other is taken."""
        return self._memory.values()

    def close(self) -> None:
        """Free the memory of the run on all nodes."""
        self._run.close()

    def abandon(self, error: BaseException) -> None:
        """Leave the memory to workers that may be stuck in a step; it is freed behind that."""
        self._run.abandon(error)

    def _hear(self, event: Any) -> None:
        if isinstance(event, Progress | EpochDone):
            self._progress = event.progress if isinstance(event, EpochDone) else event
            if monotonic() >= self._next_note_s:  # epochs may be short
                self._note_progress()
        self._observer.hear(event)

    def _note_progress(self) -> None:
        """Let others see how far the run is."""
        if self._progress:
            self._site.workers.board.note(progress=asdict(self._progress))
            self._progress, self._next_note_s = None, monotonic() + _NOTE_EVERY_S


def gradient_of(site: Site, model: Sequential, data: Dataset, loss: Loss, shards: int) -> tuple[Array, float]:
    """Compute the gradient of the mean loss over all samples, (P,), and the loss; collective."""
    plan = StepPlan(
        loss=loss, optimizer=LeaveGradient(), options=StepOptions(), batch_size=len(data), shards=shards, seed=0
    )
    observer = Observer(model, plan, 1, has_accuracy=predicts(data, loss) != "numbers")
    training = Training(site, model, data, plan, observer, Snapshot.initial(model.values, plan))
    try:
        stopped = training.advance(0, 1, plan.optimizer, last=1)
    except BaseException as error:
        training.abandon(error)
        raise
    mean = stopped.loss if stopped else float(training.records(0, 1)["loss"][0])
    values = training.values().copy()
    training.close()
    return values, mean


def with_values(model: Sequential, values: Array) -> Sequential:
    """Return the same model with parameters of its own."""
    copy = model.blueprint().build(model.input_shape)
    copy.bind(values.copy())
    return copy

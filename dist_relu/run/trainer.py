"""A trainer holds a run: it goes on and stops as it is told, and knows where it stands, to the bit.

The coordinator hands out a run in segments, of which workers do each without asking. A segment ends where somebody
wants a word: at the end of the call or of an epoch, before a validation, where a callback or its clock says so. What is
decided there falls on the same step with any number of workers.
"""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, final

from dist_relu.comm.buckets import LEAST_BUCKET_BYTES
from dist_relu.core import machine
from dist_relu.core.arrays import Array
from dist_relu.core.checks import (
    check_callable,
    check_int,
    check_is,
    check_positive,
    optional,
)
from dist_relu.core.html import curve, share_text, table
from dist_relu.data import Dataset
from dist_relu.data.augment import ImageShape
from dist_relu.engine.arguments import Data, check_statistics, predicts
from dist_relu.engine.diagnosis import NotFinite, diagnose, diverged_error
from dist_relu.engine.loop import num_steps_per_epoch
from dist_relu.engine.memory import Snapshot
from dist_relu.engine.plan import StepPlan
from dist_relu.engine.replicas import check_replicas, plan_of_replica
from dist_relu.engine.results import FitResult, Validated, fit_result
from dist_relu.engine.sanity import doubts_of_result
from dist_relu.engine.site import Site
from dist_relu.engine.training import with_values
from dist_relu.engine.watch.observer import Observer, ProgressHandler
from dist_relu.engine.watch.records import Watch
from dist_relu.errors import CheckpointError, TrainingDiverged, TrainingWarning
from dist_relu.nn import Sequential
from dist_relu.optim import Optimizer
from dist_relu.optim.rates import learning_rate, scaled
from dist_relu.partition import check_fit, level_of_groups
from dist_relu.run.agenda import Agenda, callback_states, keyed
from dist_relu.run.position import Position
from dist_relu.run.settings import Settings, settings_of
from dist_relu.run.state import RunState, check_goes_on
from dist_relu.run.tracing.log import CALLBACKS, VALIDATION
from dist_relu.run.tracing.trace import Trace
from dist_relu.run.validation import Validation, check_metric_names

ValidateEvery = Literal["epoch"] | int

_log = logging.getLogger(__name__)

_NO_NUMBERS = "Parameters became NaN or infinite"


@final
class Trainer:
    """Trains `model` in place, call after call; `Coordinator.trainer` makes one.

    fit(epochs=3) and then fit(epochs=2) is fit(epochs=5), to the bit. Between calls the run lies in the nodes' shared
    memory. Whatever ends a call, model and trainer have what was there after the last complete step, and can go on.
    Use as a context manager, or call `close`.
    site: the workers, and the data that lie where they are.
    """

    def __init__(
        self,
        site: Site,
        model: Sequential,
        data: Dataset,
        plan: StepPlan,
        *,
        shuffle: bool = True,
        image_shape: ImageShape | None = None,
        watch: Watch | None = None,
        state: RunState | None = None,
        verify_every: int | None = None,
        trace: Trace | None = None,
    ) -> None:
        """See `Coordinator.trainer`, which checks all arguments."""
        self.site, self._model, self._data, self._plan = site, model, data, plan
        self._shuffle, self._image_shape = shuffle, image_shape
        self._per_epoch = num_steps_per_epoch(len(data), plan.batch_size, plan.options.accumulate)
        self._has_accuracy = predicts(data, plan.loss) != "numbers"
        seen = plan_of_replica(plan, 0) if plan.averaging else plan
        self._observer = Observer(model, seen, self._per_epoch, watch, has_accuracy=self._has_accuracy)
        self._trace = trace.log_of(model, plan) if trace else None
        self._position = Position(
            site,
            model,
            data,
            plan,
            self._observer,
            shuffle=shuffle,
            image_shape=image_shape,
            verify_every=verify_every,
            trace=self._trace,
        )
        self._lr_scale = 1.0
        self._optimizer = plan.optimizer
        self._agenda: Agenda | None = None
        self._settled = 0
        self._callbacks: Sequence[Any] = ()
        self._remembered: dict[str, Any] = {}
        self.validations: list[Validated] = []
        self.metrics: list[str] = []  # that validations of the present call measure
        if state is not None:
            self._take_over(state)

    @property
    def model(self) -> Sequential:
        """The model, with the parameters after the last complete step; between the steps of `fit` too."""
        return self._model

    @property
    def step(self) -> int:
        """How many steps are complete."""
        return self._position.step

    @property
    def steps_per_epoch(self) -> int:
        return self._per_epoch

    @property
    def epoch(self) -> int:
        """How many epochs are complete."""
        return self.step // self._per_epoch

    @property
    def losses(self) -> Array:
        """The mean loss of each step's samples, (steps,)."""
        losses: Array = self._position.history.records["loss"].copy()
        return losses

    @property
    def records(self) -> Array:
        """See `RunState.records`."""
        records: Array = self._position.history.records.copy()
        return records

    @cached_property
    def settings(self) -> Settings:
        """What fixes the bits of the run, see `RunState`; to find it out reads all data."""
        return settings_of(self._model, self._data, self._plan, shuffle=self._shuffle)

    @property
    def average(self) -> Sequential | None:
        """With `ema_decay`, the model with its averaged parameters."""
        if not self._plan.options.num_averages:
            return None
        return with_values(self._model, self._position.vectors().vectors[-1])

    @property
    def is_settled(self) -> bool:
        """Whether all who were to be called after the last step have been, and validation done, if it was due.

        A call that ended in between leaves it False; a run that goes on from there does not make up for it.
        """
        return self._settled >= self.step or self._agenda is None or not self._agenda.is_due(self.step)

    @property
    def optimizer(self) -> Optimizer:
        """The one that the run was made with."""
        return self._plan.optimizer

    @property
    def lr_scale(self) -> float:
        """A factor of the learning rate, whatever the optimiser's schedule says.  May be set between steps."""
        return self._lr_scale

    @lr_scale.setter
    def lr_scale(self, scale: float) -> None:
        self._lr_scale = check_positive("lr_scale", scale)
        self._optimizer = self._observer.optimizer = scaled(self._plan.optimizer, self._lr_scale)

    @property
    def shards(self) -> int:
        """Into how many parts every batch is cut."""
        return self._plan.shards

    @property
    def has_groups(self) -> bool:
        """Whether shards are in groups, those of replicas or of a compression."""
        return self._plan.averaging is not None or self._plan.options.compression is not None

    @property
    def steps_per_round(self) -> int:
        """How many steps replicas take from one average to the next; 1 where there are none."""
        return self._plan.averaging.steps if self._plan.averaging else 1

    @property
    def bucket_bytes(self) -> int:
        """How large messages between nodes are, about; changes no bits.  May be set between steps."""
        return self._plan.bucket_bytes

    @bucket_bytes.setter
    def bucket_bytes(self, size: int) -> None:
        size = check_int("bucket_bytes", size, LEAST_BUCKET_BYTES)
        if size != self._plan.bucket_bytes:
            self._position.cut_into(size)
            self._plan = dataclasses.replace(self._plan, bucket_bytes=size)

    @property
    def lr(self) -> float | None:
        """The learning rate of the step that comes next, scaled; None for rules of your own without an `lr`."""
        return learning_rate(self._optimizer, (self.step + 0.5) / self._per_epoch)

    def __repr__(self) -> str:
        return f"Trainer(step: {self.step}, epoch: {self.epoch})"

    def _repr_html_(self) -> str:
        """Where the run stands, and its losses as a curve, for notebooks."""
        last = self.validations[-1] if self.validations else None
        rows: list[tuple[str, object]] = [("steps", self.step), ("epochs", self.epoch), ("learning rate", self.lr)]
        if len(self.losses):
            rows.append(("loss of the last step", float(self.losses[-1])))
        if last:
            rows += [("validation loss", last.loss), ("validation accuracy", share_text(last.accuracy))]
            rows += [(f"validation {name}", value) for name, value in last.metrics.items()]
        return table("Trainer", ["", ""], rows, curve("Loss", self.losses))

    def note_checkpoints(self, folder: Path) -> None:
        """Let `dist-relu status` say where states of this run are written."""
        self.site.workers.board.note(checkpoints=str(folder.absolute()))

    def fit(
        self,
        *,
        epochs: int | None = None,
        steps: int | None = None,
        validation: Data | None = None,
        validate_every: ValidateEvery = "epoch",
        metrics: str | Sequence[str] = (),
        callbacks: Sequence[Any] = (),
        max_seconds: float | None = None,
        on_progress: ProgressHandler | None = None,
    ) -> FitResult:
        """Go on for so many epochs, or steps; an epoch counts as its number of steps, wherever the last call ended.

        validation: data that are evaluated after every epoch, or every so many steps of the run (`validate_every`).
        metrics: what else validations measure, in `Validated.metrics`: names of single numbers that
        `Coordinator.evaluate` knows, such as "f1_macro".
        callbacks: objects with any of these methods, called here in their order between two steps; all workers wait.
            on_fit_begin(trainer, validates=...): before anything is done, with whether the call validates.
            on_epoch_end(trainer, summary): after every epoch, with its `EpochSummary`.
            on_validation(trainer, validated): with what `Validated` holds.
            on_settled(trainer): after all others, where any of them was called.
            on_fit_end(trainer): when the call ends, whatever ends it.
            on_steps(trainer): after every `every` steps of the run, an attribute of the object that may also be text,
            such as "60s", for so much time.
        One that raises StopIteration ends the call as if it had come to its end. What a callback must remember when
        the run is resumed it returns from `state()`, numbers, texts, lists, dicts and arrays, and gets in
        `restore(state)`.
        max_seconds: end the call after the step by which so much time is over.
        on_progress: called several times a second while workers go on, and after every epoch.

        Raises TrainingDiverged when the loss becomes NaN or infinite, or a parameter; the error says in which step,
        shard, layer and sample, and the run stands before that step. Raises FaultyWorker, with `verify_every`, when a
        worker computes wrong; the run then stands where what was verified last had agreed.
        KeyboardInterrupt, and whatever callbacks and layers raise, ends the call and goes on to the caller; with
        `ema_decay` the exception's `average` is the model with the averaged parameters.
        """
        num_steps = self._num_steps(epochs, steps)
        optional(check_callable)("on_progress", on_progress)
        optional(check_positive)("max_seconds", max_seconds)
        names = check_metric_names(metrics, validates=validation is not None)
        checked = None
        if validation is not None:
            checked = Validation(self.site, self._model, self._plan.loss, validation, names)
        self.metrics = names
        self._agenda = agenda = Agenda(
            callbacks,
            per_epoch=self._per_epoch,
            validate_every=None if checked is None else validate_every,
            max_seconds=max_seconds,
        )
        self._restore_callbacks(callbacks)
        self._observer.on_progress = on_progress
        first, last = self.step, self.step + num_steps
        _log.info(
            "Training %d parameters on %d samples: steps %d to %d, of %d each epoch; backend %s, workers: %d.",
            self._model.num_params,
            len(self._data),
            first,
            last,
            self._per_epoch,
            self.site.workers.backend,
            self.site.num_workers,
        )
        num_epochs, num_validations = len(self._observer.epochs), len(self.validations)
        goes_on = agenda.begin(self)
        with self._left_in_order(agenda):
            while goes_on and self.step < last and not agenda.is_over:
                before = self.step
                stop = agenda.next_stop(before, self._position.history.seconds_per_step)
                self._advance(min(last, stop), last, agenda)
                if self.step == before:  # workers were lost
                    continue
                with self._traced(CALLBACKS):
                    goes_on = agenda.meet(self, self._observer.epochs, lambda: self._validate(checked))
                self._settled = self.step
            self._check_finite()
        return self._result(first, num_epochs, num_validations)

    def state(self) -> RunState:
        """All that the run has come to: what `Coordinator.trainer(state=...)` goes on from, to the same bits."""
        snapshot = self._position.vectors()
        return RunState(
            step=snapshot.step,
            steps_per_epoch=self._per_epoch,
            vectors=snapshot.vectors,
            vector_names=self._plan.vector_names,
            names=self._model.names,
            shapes=[param.shape for param in self._model.params],
            records=self._position.history.records[: snapshot.step],
            settings=self.settings,
            versions=machine.versions(),
            lr_scale=self._lr_scale,
            validations=[dataclasses.asdict(validated) for validated in self.validations],
            callbacks={**self._remembered, **callback_states(self._callbacks)},
        )

    def diagnose(self) -> NotFinite | None:
        """Say what in the next step will be the first to be NaN or infinite; None if nothing is.

        This process takes the step alone, and keeps nothing of it: the bits are those that the workers would get.
        """
        return diagnose(
            self._model,
            self._data,
            dataclasses.replace(self._plan, optimizer=self._optimizer),
            self._position.vectors(),
            shuffle=self._shuffle,
            image_shape=self._image_shape,
        )

    def branch(
        self, optimizer: Optimizer | None = None, *, shards: int | None = None, bucket_bytes: int | None = None
    ) -> Trainer:
        """Begin another run with the parameters that this one has come to, with its data and options.

        It has a model of its own, and begins at step 0, with another optimizer, number of shards or size of buckets
        where one is given; this one stays as it is. Raises `PartitionError` for shards that are too many or too few.
        """
        if optimizer is not None:
            check_is("optimizer", optimizer, Optimizer)
        plan = dataclasses.replace(
            self._plan,
            optimizer=optimizer or self._plan.optimizer,
            shards=shards or self._plan.shards,
            bucket_bytes=bucket_bytes or self._plan.bucket_bytes,
        )
        check_fit(len(self._data), plan.batch_size, plan.shards, self.site.num_workers)
        check_statistics(self._model, len(self._data), plan.batch_size, plan.shards)
        if (compression := plan.options.compression) and (groups := compression.num_groups(plan.shards)) is not None:
            level_of_groups(plan.shards, groups)  # raises where they are no nodes of the tree
        check_replicas(plan, self.site.num_workers)
        return Trainer(
            self.site,
            with_values(self._model, self._position.vectors().vectors[0]),
            self._data,
            plan,
            shuffle=self._shuffle,
            image_shape=self._image_shape,
        )

    def close(self) -> None:
        """Free the memory of the run on all nodes; it can go on nevertheless, with memory of its own again."""
        self._position.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _num_steps(self, epochs: int | None, steps: int | None) -> int:
        if (epochs is None) == (steps is None):
            raise TypeError("fit needs epochs=... or steps=..., and not both.")
        return check_int("epochs", epochs) * self._per_epoch if steps is None else check_int("steps", steps)

    def _advance(self, stop: int, last: int, agenda: Agenda) -> None:
        """Let workers take the steps up to number `stop`, or some of them.  last: see `fit`."""
        stopped = self._position.advance(stop, self._optimizer, last=last)
        if agenda.has_business or stopped:
            self._position.bring_up_to_date(self._model)
        if stopped is None:
            return
        if stopped.num_skipped:
            self._position.uncount_last()
            times = f"For the {stopped.num_skipped}th time one after another"
            raise self._diverged(f"{times}, loss or parameters became NaN or infinite")
        self._check_finite()
        raise self._diverged(_NO_NUMBERS if stopped.of_parameters else f"The loss became {stopped.loss}")

    def _check_finite(self) -> None:
        """Raise TrainingDiverged where the last step led to parameters that are no numbers; it counts as not taken."""
        if not self._position.is_finite():
            self._position.step_back()
            raise self._diverged(_NO_NUMBERS)

    def _diverged(self, what: str) -> TrainingDiverged:
        """Say what has become of the step that the run stands before."""
        found = state = trouble = None
        if not self._position.is_lost:
            state = self.state()
            try:
                found = self.diagnose()
            except Exception as error:  # layers may raise anything
                trouble = f"The step could not be looked into: {type(error).__name__}: {error}"
        diverged = diverged_error(what, self.step, self.epoch, found, self._observer.watched)
        diverged.state = state
        if trouble:
            diverged.add_note(trouble)
        return diverged

    @contextmanager
    def _left_in_order(self, agenda: Agenda) -> Iterator[None]:
        """Whatever ends a call, let the model have what the run has come to, and tell all who want to know.

        StopIteration ends it well.
        """
        try:
            yield
        except StopIteration:
            pass
        except BaseException as error:
            self._position.bring_up_to_date(self._model)
            _log.info("Training ends after step %d: %s", self.step, str(error) or type(error).__name__)
            if self._plan.options.num_averages and not self._position.is_lost:
                error.average = self.average  # type: ignore[attr-defined]
            agenda.end(self)
            raise
        self._position.bring_up_to_date(self._model)
        _log.info("Training ends after step %d.", self.step)
        agenda.end(self)

    def _traced(self, what: str) -> AbstractContextManager[None]:
        """Trace what is done in a block of code, if the run is traced."""
        return self._trace.span(what) if self._trace else nullcontext()

    def _validate(self, validation: Validation | None) -> Validated:
        assert validation is not None
        with self._traced(VALIDATION):
            validated = validation.measure(self.step, self.epoch)
        self.validations.append(validated)
        return validated

    def _result(self, first: int, num_epochs: int, num_validations: int) -> FitResult:
        """What the present call has done.  first: the step that it began with."""
        average = self.average
        result = fit_result(
            self._position.history.records[first:],
            self._observer.epochs[num_epochs:],
            average,
            self._observer.take_watched(),
            self.validations[num_validations:],
            has_accuracy=self._has_accuracy,
        )
        if result.epochs and first == 0:
            for doubt in doubts_of_result(result, self._data, self._plan):
                warnings.warn(doubt, TrainingWarning, stacklevel=4)
        return result

    def _restore_callbacks(self, callbacks: Sequence[Any]) -> None:
        """Give callbacks what they have remembered in a run that is resumed."""
        self._callbacks = callbacks
        for key, callback in keyed(callbacks):
            if (state := self._remembered.pop(key, None)) is not None and hasattr(callback, "restore"):
                callback.restore(state)

    def _take_over(self, state: RunState) -> None:
        """Stand where `state` does.  Raises CheckpointError when anything differs that fixes the bits."""
        check_goes_on(state, self.settings)
        needed = len(self._plan.vector_names), self._model.num_params
        if state.vectors.shape != needed:
            raise CheckpointError(f"The state has vectors of shape {state.vectors.shape}; this run needs {needed}.")
        self._position.set(Snapshot(step=state.step, vectors=state.vectors), state.records)
        self._settled = state.step
        if state.lr_scale != 1:
            self.lr_scale = state.lr_scale
        self.validations = [Validated(**validated) for validated in state.validations]
        self._remembered = dict(state.callbacks)
        self._model.values = state.vectors[0]

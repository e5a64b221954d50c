"""A trainer holds a run: it goes on and stops as it is told, and knows where it stands, to the bit.

The coordinator hands out a run in segments, of which workers do each without asking. A segment ends where somebody
wants a word: at the end of the call or of an epoch, before a validation, where a callback or its clock says so. What is
decided there falls on the same step with any number of workers.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from types import TracebackType
from typing import Any, Literal, Self, final

import numpy as np

from dist_relu.core import machine
from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_callable, check_int, check_positive, optional
from dist_relu.data import Dataset
from dist_relu.data.augment import ImageShape
from dist_relu.engine.arguments import Data, check_model, dataset_of
from dist_relu.engine.diagnosis import NotFinite, diagnose
from dist_relu.engine.loop import num_steps_per_epoch
from dist_relu.engine.memory import Snapshot
from dist_relu.engine.plan import StepPlan
from dist_relu.engine.results import FitResult, Validated, fit_result
from dist_relu.engine.sanity import doubts_of_result
from dist_relu.engine.site import Site
from dist_relu.engine.training import Training, with_values
from dist_relu.engine.watch.observer import Observer, ProgressHandler
from dist_relu.engine.watch.records import Watch
from dist_relu.errors import BackendError, DataError, TrainingDiverged, TrainingWarning
from dist_relu.nn import Sequential
from dist_relu.optim.rules import learning_rate, scaled
from dist_relu.run.agenda import Agenda, callback_states, keyed
from dist_relu.run.history import History
from dist_relu.run.settings import Settings, settings_of
from dist_relu.run.state import RunState, check_goes_on

_LOST = "What this run had come to is lost with the workers that held it. Resume it from a state."

ValidateEvery = Literal["epoch"] | int


@final
class Trainer:
    """Trains `model` in place, call after call; `Coordinator.trainer` makes one.

    fit(epochs=3) and then fit(epochs=2) is fit(epochs=5), to the bit. Between calls the run lies in the nodes' shared
    memory. Whatever ends a call, model and trainer have what was there after the last complete step, and can go on.
    Use as a context manager, or call `close`.
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
    ) -> None:
        """See `Coordinator.trainer`, which checks all arguments."""
        self._site, self._model, self._data, self._plan = site, model, data, plan
        self._shuffle, self._image_shape = shuffle, image_shape
        self._per_epoch = num_steps_per_epoch(len(data), plan.batch_size, plan.options.accumulate)
        self._observer = Observer(model, plan, self._per_epoch, watch, has_classes=data.has_classes)
        self._training: Training | None = None
        self._snapshot: Snapshot | None = Snapshot.initial(model.values, plan)
        self._history = History()
        self._step = 0
        self._lr_scale = 1.0
        self._optimizer = plan.optimizer
        self._agenda: Agenda | None = None
        self._settled = 0
        self._callbacks: Sequence[Any] = ()
        self._remembered: dict[str, Any] = {}
        self.validations: list[Validated] = []
        if state is not None:
            self._take_over(state)

    @property
    def model(self) -> Sequential:
        """The model, with the parameters after the last complete step; between the steps of `fit` too."""
        return self._model

    @property
    def step(self) -> int:
        """How many steps are complete."""
        return self._step

    @property
    def steps_per_epoch(self) -> int:
        return self._per_epoch

    @property
    def epoch(self) -> int:
        """How many epochs are complete."""
        return self._step // self._per_epoch

    @property
    def losses(self) -> Array:
        """The mean loss of each step's samples, (steps,)."""
        losses: Array = self._history.records["loss"].copy()
        return losses

    @property
    def average(self) -> Sequential | None:
        """With `ema_decay`, the model with its averaged parameters."""
        if not self._plan.options.num_averages:
            return None
        return with_values(self._model, self._vectors().vectors[-1])

    @property
    def is_settled(self) -> bool:
        """Whether all who were to be called after the last step have been, and validation done, if it was due.

        A call that ended in between leaves it False; a run that goes on from there does not make up for it.
        """
        return self._settled >= self._step or self._agenda is None or not self._agenda.is_due(self._step)

    @property
    def lr_scale(self) -> float:
        """A factor of the learning rate, whatever the optimiser's schedule says.  May be set between steps."""
        return self._lr_scale

    @lr_scale.setter
    def lr_scale(self, scale: float) -> None:
        self._lr_scale = check_positive("lr_scale", scale)
        self._optimizer = self._observer.optimizer = scaled(self._plan.optimizer, self._lr_scale)

    @property
    def lr(self) -> float | None:
        """The learning rate of the step that comes next, scaled; None for rules of your own without an `lr`."""
        return learning_rate(self._optimizer, (self._step + 0.5) / self._per_epoch)

    def __repr__(self) -> str:
        return f"Trainer(step: {self.step}, epoch: {self.epoch})"

    def fit(
        self,
        *,
        epochs: int | None = None,
        steps: int | None = None,
        validation: Data | None = None,
        validate_every: ValidateEvery = "epoch",
        callbacks: Sequence[Any] = (),
        max_seconds: float | None = None,
        on_progress: ProgressHandler | None = None,
    ) -> FitResult:
        """Go on for so many epochs, or steps; an epoch counts as its number of steps, wherever the last call ended.

        validation: data that are evaluated after every epoch, or every so many steps of the run (`validate_every`).
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
        shard, layer and sample, and the run stands before that step.
        KeyboardInterrupt, and whatever callbacks and layers raise, ends the call and goes on to the caller; with
        `ema_decay` the exception's `average` is the model with the averaged parameters.
        """
        num_steps = self._num_steps(epochs, steps)
        optional(check_callable)("on_progress", on_progress)
        optional(check_positive)("max_seconds", max_seconds)
        checked = None if validation is None else self._check_validation(validation)
        self._agenda = agenda = Agenda(
            callbacks,
            per_epoch=self._per_epoch,
            validate_every=None if checked is None else validate_every,
            max_seconds=max_seconds,
        )
        self._restore_callbacks(callbacks)
        self._observer.on_progress = on_progress
        first, last = self._step, self._step + num_steps
        num_epochs, num_validations = len(self._observer.epochs), len(self.validations)
        goes_on = agenda.begin(self)
        with self._left_in_order(agenda):
            while goes_on and self._step < last and not agenda.is_over:
                self._advance(min(last, agenda.next_stop(self._step, self._history.seconds_per_step)), last, agenda)
                goes_on = agenda.meet(self, self._observer.epochs, lambda: self._validate(checked))
                self._settled = self._step
            self._check_finite()
        return self._result(first, num_epochs, num_validations)

    def state(self) -> RunState:
        """All that the run has come to: what `Coordinator.trainer(state=...)` goes on from, to the same bits."""
        snapshot = self._vectors()
        return RunState(
            step=snapshot.step,
            steps_per_epoch=self._per_epoch,
            vectors=snapshot.vectors,
            vector_names=self._vector_names(),
            names=self._model.names,
            shapes=[param.shape for param in self._model.params],
            records=self._history.records[: snapshot.step],
            settings=self._settings,
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
            self._vectors(),
            shuffle=self._shuffle,
            image_shape=self._image_shape,
        )

    def close(self) -> None:
        """Free the memory of the run on all nodes; it can go on nevertheless, with memory of its own again."""
        if self._training:
            if self._snapshot is None:
                self._snapshot = self._training.snapshot()
            training, self._training = self._training, None
            training.close()

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

    def _check_validation(self, validation: Data) -> Dataset:
        try:
            data = dataset_of(validation, "validation")
            check_model(self._model, data, self._plan.loss)
        except ValueError as error:
            raise DataError(f"validation: {error}") from None
        return data

    def _advance(self, stop: int, last: int, agenda: Agenda) -> None:
        """Let workers take the steps up to number `stop`, or as many as one segment has.  last: see `fit`."""
        training = self._training or self._start()
        stop = min(stop, self._step + training.max_steps)
        try:
            num_skipped = self._history.num_skipped if self._plan.options.skips else 0
            stopped = training.advance(self._step, stop, self._optimizer, last=last, num_skipped=num_skipped)
        except BaseException as error:
            self._give_up(error)
            raise
        self._note(training, training.step)
        if agenda.has_business or stopped:
            self._model.values = training.values()
        if stopped is not None:
            if stopped.num_skipped:
                self._back_to(dataclasses.replace(training.snapshot(), step=self._step - 1))
                times = f"For the {stopped.num_skipped}th time one after another"
                raise self._diverged(f"{times}, loss or parameters became NaN or infinite")
            self._check_finite()
            raise self._diverged(f"The loss became {stopped.loss}")

    def _start(self) -> Training:
        """Bring the run into the memory of the nodes."""
        if self._snapshot is None:
            raise BackendError(_LOST)
        training = Training(
            self._site,
            self._model,
            self._data,
            self._plan,
            self._observer,
            self._snapshot,
            image_shape=self._image_shape,
            records=self._history.records[self._step - self._step % self._per_epoch :],
            shuffle=self._shuffle,
        )
        self._training, self._snapshot = training, None
        return training

    def _note(self, training: Training, step: int) -> None:
        """Note what was done since the last time.  step: how many are complete."""
        self._history.append(training.records(self._step, step))
        self._step = step

    def _give_up(self, error: BaseException) -> None:
        """A segment ended with an exception: keep what is whole, and leave its memory to workers that may be stuck."""
        training, self._training = self._training, None
        assert training
        self._snapshot = training.finite_snapshot()
        if self._snapshot:
            self._note(training, self._snapshot.step)
        training.abandon(error)

    def _check_finite(self) -> None:
        """Raise TrainingDiverged where the last step led to parameters that are no numbers; it counts as not taken."""
        if not self._training or np.isfinite(self._training.values()).all():
            return
        self._back_to(self._training.finite_snapshot())
        raise self._diverged("Parameters became NaN or infinite")

    def _back_to(self, snapshot: Snapshot | None) -> None:
        """Stand where the run has been before; None: that is lost."""
        assert self._training
        self._training.close()
        self._training, self._snapshot = None, snapshot
        self._step -= 1
        if snapshot:
            self._history.cut(snapshot.step)
            self._step = snapshot.step
            self._observer.epochs = [epoch for epoch in self._observer.epochs if epoch.epoch < self.epoch]
            self._model.values = snapshot.vectors[0]

    def _diverged(self, what: str) -> TrainingDiverged:
        """Say what has become of the step that the run stands before."""
        found = state = trouble = None
        if self._training or self._snapshot:
            state = self.state()
            try:
                found = self.diagnose()
            except Exception as error:  # layers may raise anything
                trouble = f"The step could not be looked into: {type(error).__name__}: {error}"
        diverged = TrainingDiverged(
            f"{what} in step {self._step} (epoch {self.epoch}). {f'{found} ' if found else ''}Lower the learning rate, "
            "warm it up, or clip the norm of gradients."
        )
        diverged.step, diverged.state, diverged.watched = self._step, state, self._observer.watched
        if found:
            diverged.shard, diverged.layer, diverged.sample = found.shard, found.layer, found.sample
            diverged.parameter = found.parameter
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
            self._bring_model_up_to_date()
            if self._plan.options.num_averages and (self._training or self._snapshot):
                error.average = self.average  # type: ignore[attr-defined]
            agenda.end(self)
            raise
        self._bring_model_up_to_date()
        agenda.end(self)

    def _bring_model_up_to_date(self) -> None:
        if self._training:
            self._model.values = self._training.values()
        elif self._snapshot:
            self._model.values = self._snapshot.vectors[0]

    def _validate(self, data: Dataset | None) -> Validated:
        assert data is not None
        evaluation = self._site.evaluate(self._model, data, self._plan.loss)
        validated = Validated(step=self._step, epoch=self.epoch, loss=evaluation.loss, accuracy=evaluation.accuracy)
        self.validations.append(validated)
        return validated

    def _result(self, first: int, num_epochs: int, num_validations: int) -> FitResult:
        """What the present call has done.  first: the step that it began with."""
        average = self.average
        result = fit_result(
            self._history.records[first:],
            self._observer.epochs[num_epochs:],
            average,
            self._observer.take_watched(),
            self.validations[num_validations:],
            has_classes=self._data.has_classes,
        )
        if result.epochs and first == 0:
            for doubt in doubts_of_result(result, self._data, self._plan.loss):
                warnings.warn(doubt, TrainingWarning, stacklevel=4)
        return result

    def _vectors(self) -> Snapshot:
        if self._training:
            return self._training.snapshot()
        if self._snapshot is None:
            raise BackendError(_LOST)
        return dataclasses.replace(self._snapshot, vectors=self._snapshot.vectors.copy())

    @cached_property
    def _settings(self) -> Settings:
        """What fixes the bits; to find it out reads all data."""
        return settings_of(self._model, self._data, self._plan, shuffle=self._shuffle)

    def _vector_names(self) -> list[str]:
        names = ["parameters", *(f"optimizer state {i}" for i in range(self._plan.optimizer.num_states))]
        return names + ["average"] * self._plan.options.num_averages

    def _restore_callbacks(self, callbacks: Sequence[Any]) -> None:
        """Give callbacks what they have remembered in a run that is resumed."""
        self._callbacks = callbacks
        for key, callback in keyed(callbacks):
            if (state := self._remembered.pop(key, None)) is not None and hasattr(callback, "restore"):
                callback.restore(state)

    def _take_over(self, state: RunState) -> None:
        """Stand where `state` does.  Raises CheckpointError when anything differs that fixes the bits."""
        check_goes_on(state, self._settings)
        self._snapshot = Snapshot(step=state.step, vectors=state.vectors)
        self._step, self._history = state.step, History(state.records)
        self._settled = state.step
        if state.lr_scale != 1:
            self.lr_scale = state.lr_scale
        self.validations = [Validated(**validated) for validated in state.validations]
        self._remembered = dict(state.callbacks)
        self._model.values = state.vectors[0]

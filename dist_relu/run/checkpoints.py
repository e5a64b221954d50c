"""Checkpoints are states of a run in files: written while it goes on, to go on from when something has ended it.

At a step that is due the state is copied, and a thread writes the copy while workers train on. A file appears under its
name when it is whole and on the disk, so whatever ends the process leaves only whole ones.
"""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import final

from dist_relu.core.checks import check_fields, check_int, check_path, optional
from dist_relu.core.files import make_folder
from dist_relu.engine.results import Validated
from dist_relu.errors import BackendError, CheckpointError, TrainingWarning, WriteError
from dist_relu.run.agenda import parse_every
from dist_relu.run.monitoring import check_monitored, check_validation_monitor, is_maximised, monitored
from dist_relu.run.state import RunState
from dist_relu.run.state_file import load_state, save_state
from dist_relu.run.trainer import Trainer
from dist_relu.runtime.backends.interrupts import without_interrupts


@final
@dataclass(eq=False)
class Checkpoint:
    """Writes the state of a run into a folder again and again; training does not wait for the disk.

    folder: of this run alone; it is made where there is none. Files sort by their steps.
    every: 500 or "500steps", "1epoch", "60s". The end of each call is written too, whatever ends it.
    keep: how many of the last files stay.  best: by this, "validation_loss", "validation_accuracy" or what validations
    measure by `Trainer.fit(metrics=...)`, as "validation_f1_macro", the state at the best validation is written and
    stays too, if there are validations; None for the last ones alone.

    Where writing takes longer than `every`, a state that waits gives way to the next one, unless it is the best; so
    there are at most three copies of the run's vectors in memory. What can't be written is warned of once, with
    TrainingWarning, and tried again the next time; training goes on. A state with parameters that are no numbers is
    not written, for nothing can go on from it.
    Raises WriteError for a folder that takes no files.
    """

    folder: str | Path
    every: int | str = "1epoch"
    keep: int = 3
    best: str | None = "validation_loss"
    _is_due: bool = field(init=False, default=False, repr=False)
    _has_warned: bool = field(init=False, default=False, repr=False)
    _writer: _Writer = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_fields(self, folder=check_path, keep=check_int, best=optional(check_validation_monitor))
        parse_every(self.every)
        make_folder(self.folder)
        self._writer = _Writer(Path(self.folder), self.keep)

    def on_fit_begin(self, trainer: Trainer, *, validates: bool) -> None:
        """Raise ValueError where validations will not have what `best` asks for; warn of another run's checkpoints."""
        if self.best and validates:
            check_monitored(
                "Checkpoint", self.best, trainer.model, validates=True, metrics=trainer.metrics, argument="best"
            )
        trainer.note_checkpoints(Path(self.folder))
        self._is_due, self._writer.written = False, None  # by another run, or what is not there any more
        if trainer.step == 0 and (others := checkpoint_files(self.folder)):
            warnings.warn(
                f"{self.folder} holds checkpoints already, up to step {others[-1][0]:,}, which this run may take for "
                "its own. Give each run a folder of its own, or go on from the newest_state of this one.",
                TrainingWarning,
                stacklevel=2,
            )

    def on_validation(self, trainer: Trainer, validated: Validated) -> None:
        """Have it written if it is the best so far."""
        self._is_due |= self._best_step(trainer.validations) == validated.step

    def on_steps(self, trainer: Trainer) -> None:
        """Have it written, when all others have seen this step."""
        self._is_due = True

    def on_settled(self, trainer: Trainer) -> None:
        """Hand the state over, if it is to be written."""
        if self._is_due:
            self._warn()
            self._hand_over(trainer)

    def on_fit_end(self, trainer: Trainer) -> None:
        """Write the last state, and wait until it is there.

        Not where some have been called after its step and others not, which could never be made up for: then the run
        is gone on with from the state before, and comes there again.
        """
        self._writer.wait()
        if trainer.is_settled and self._writer.written != trainer.step:
            with suppress(BackendError):  # the state is lost with the workers that held it, as the caller is told
                self._hand_over(trainer)
            self._writer.wait()
        self._warn()

    def _hand_over(self, trainer: Trainer) -> None:
        self._is_due = False
        self._writer.take(_Order(state=trainer.state(), best_step=self._best_step(trainer.validations)))

    def _best_step(self, validations: Sequence[Validated]) -> int | None:
        """Find the step of the best validation, the first of several."""
        if self.best is None:
            return None
        sign = 1 if is_maximised(self.best) else -1
        values = {one.step: value * sign for one in validations if (value := monitored(self.best, one)) is not None}
        return max((step for step in values if isfinite(values[step])), key=values.__getitem__, default=None)

    def _warn(self) -> None:
        """Tell of what could not be written, in the user's own thread."""
        failure = self._writer.failure
        if failure and not self._has_warned:
            warnings.warn(f"{failure} Training goes on, and tries again next time.", TrainingWarning, stacklevel=2)
        self._has_warned = failure is not None


def newest_state(folder: str | Path) -> RunState | None:
    """The newest whole state of those that `Checkpoint` has written into a folder; None where there are none.

    Damaged ones are passed over, each with a TrainingWarning that names it and says why. Raises CheckpointError when
    there are some and none is whole.
    """
    refused = []
    for _, path in reversed(checkpoint_files(folder)):
        try:
            state = load_state(path)
        except CheckpointError as error:
            refused.append(str(error))
            continue
        for reason in refused:
            warnings.warn(f"{reason} An older checkpoint is taken: {path.name}.", TrainingWarning, stacklevel=2)
        return state
    if refused:
        raise CheckpointError(f"{folder} has no checkpoint that is whole. {' '.join(refused)}")
    return None


def checkpoint_files(folder: str | Path) -> list[tuple[int, Path]]:
    """List the files in a folder that have the names of checkpoints, with their steps, the newest last."""
    try:
        found = [(re.fullmatch(r"step-(\d{9,18})\.safetensors", path.name), path) for path in Path(folder).iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted((int(name[1]), path) for name, path in found if name)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Order:
    """A state to be written.  best_step: of the best state so far."""

    state: RunState
    best_step: int | None

    @property
    def is_best(self) -> bool:
        return self.state.step == self.best_step


@final
class _Writer:
    """Writes one state after another in a thread, which is there as long as there is something to write.

    written: the step of the last state that was.  failure: what the last attempt failed of; None if it did not.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder, self._keep = folder, keep
        self.written: int | None = None
        self.failure: str | None = None
        self._lock = threading.Lock()
        self._waiting: list[_Order] = []
        self._thread: threading.Thread | None = None

    def take(self, order: _Order) -> None:
        """Write this next, in place of all that still wait, but for the best."""
        with without_interrupts(), self._lock:  # Ctrl-C would leave a thread that has not begun, or a held lock
            self._waiting = [one for one in self._waiting if one.is_best and not order.is_best] + [order]
            if not self._thread:
                self._thread = threading.Thread(target=self._work, name="dist_relu checkpoints", daemon=True)
                self._thread.start()

    def wait(self) -> None:
        """Wait until nothing is left to write."""
        if thread := self._thread:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                order = self._waiting.pop(0)
            try:
                self._write(order)
                self.failure = None
            except Exception as error:  # whatever it is, training goes on
                self.failure = str(error) or type(error).__name__

    def _write(self, order: _Order) -> None:
        parameters, step = order.state.vectors[0], order.state.step
        if not (isfinite(parameters.min()) and isfinite(parameters.max())):
            return
        save_state(order.state, self._folder / f"step-{step:09}.safetensors")
        self.written = step
        older = [(number, path) for number, path in checkpoint_files(self._folder) if number <= step]
        for number, path in older[: -self._keep]:
            if number != order.best_step:
                _remove(path)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(f"{path} can't be removed: {error.strerror}.") from error

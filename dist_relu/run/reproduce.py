"""Runs that are run again: to see whether they come to the same bits, or to have what they were in the middle."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dist_relu.data import Dataset
from dist_relu.engine.results import Validated
from dist_relu.engine.watch.observer import ProgressHandler
from dist_relu.errors import CheckpointError, TrainingWarning
from dist_relu.run.callbacks import ReduceOnPlateau
from dist_relu.run.checkpoints import checkpoint_files, newest_state
from dist_relu.run.info import STATE_FILE, RunInfo
from dist_relu.run.settings import differences
from dist_relu.run.state import RunState
from dist_relu.run.state_file import load_state
from dist_relu.run.trainer import Trainer


def recorded_state(folder: Path) -> RunState | None:
    """The last state in the log folder of a run, or in that of its checkpoints; None where there is none."""
    if (folder / STATE_FILE).is_file():
        return load_state(folder / STATE_FILE)
    return newest_state(folder)


def nearest_state(folder: Path, info: RunInfo, step: int) -> RunState | None:
    """The state of a run from which the fewest steps lead to `step`; None for its beginning.

    folder: of its log or its checkpoints; those that a log tells of are looked for, too.
    """
    files = checkpoint_files(folder)
    if isinstance(elsewhere := info.options.get("checkpoint"), str):
        files += checkpoint_files(elsewhere)
    last = recorded_state(folder)
    if last and last.step == step:
        return last
    for _, path in sorted((file for file in files if file[0] <= step), reverse=True):
        try:
            state = load_state(path)
        except CheckpointError as error:
            warnings.warn(f"{error} One before it is taken.", TrainingWarning, stacklevel=2)
            continue
        if state.settings == info.settings:
            return state
    return None


def check_same_run(info: RunInfo, trainer: Trainer) -> None:
    """Raise CheckpointError unless a trainer has what fixed the bits of a run, programs and processor apart."""
    if not info.settings:
        raise CheckpointError("Its run.json does not hold what fixes its bits: an older version of dist_relu wrote it.")
    for name, there, here in differences(info.settings, trainer.settings):
        raise CheckpointError(f"It can't be run again, as {name} was {there!r} and is {here!r}.")


def run_again(
    trainer: Trainer,
    to_step: int,
    recorded: RunState,
    on_progress: ProgressHandler | None,
    *,
    plateau: ReduceOnPlateau | None = None,
    validation: Dataset | None = None,
) -> str | None:
    """Take the steps up to number `to_step` - 1, at most those that were recorded.

    plateau: what lowered the learning rate of the run, by the losses of `validation` or of training.
    validation: what the run is validated with again, and compared by; None if it need not be.
    Returns in words where the run first differs from what was recorded, and then goes no further; None if nowhere.
    """
    measured = dict.fromkeys(name for one in recorded.validations for name in one.get("metrics", {}))
    while trainer.step < to_step:
        first, per_epoch = trainer.step, trainer.steps_per_epoch
        result = trainer.fit(
            steps=min(per_epoch - first % per_epoch, to_step - first),
            validation=validation,
            metrics=list(measured) if validation else [],
            callbacks=[plateau] if plateau else [],
            on_progress=on_progress,
        )
        is_other = trainer.losses[first:] != recorded.losses[first : trainer.step]
        if is_other.any():
            step = first + int(np.argmax(is_other))
            is_now, was = float(trainer.losses[step]), float(recorded.losses[step])
            return f"the loss of step {step:,} (epoch {step // per_epoch + 1}) was {was!r} and is {is_now!r}"
        if found := _other_validation(result.validations, recorded):
            return found
    if trainer.step == recorded.step and (found := trainer.state().first_difference(recorded)):
        return f"after step {trainer.step:,} they are, now and before, {found}"
    return None


def _other_validation(validations: Sequence[Validated], recorded: RunState) -> str | None:
    """Say in words which number of a validation is not what was recorded, after the same step; None if all are."""
    known = {one["step"]: Validated(**one) for one in recorded.validations}
    for validated in validations:
        before = known.get(validated.step, validated)
        for name, value in _numbers(before).items():
            is_now = _numbers(validated).get(name)
            if repr(is_now) != repr(value):  # NaN is what it was
                return f"{name} in validation after step {validated.step:,} was {value!r} and is {is_now!r}"
    return None


def _numbers(validated: Validated) -> dict[str, float | None]:
    return {"loss": validated.loss, "accuracy": validated.accuracy, **validated.metrics}

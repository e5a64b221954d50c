"""Where `dist-relu train --resume` goes on from, and with which options."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, final

import click
from click.core import ParameterSource

from dist_relu.cli.common import usage_errors
from dist_relu.cli.config import defaults_from
from dist_relu.cli.schedules import plateau_of
from dist_relu.cli.training import Task, TrainingOptions
from dist_relu.coordinator import Coordinator
from dist_relu.engine.watch.records import Watch
from dist_relu.errors import CheckpointError
from dist_relu.run.checkpoints import newest_state
from dist_relu.run.info import RUN_FILE, RunInfo, read_run_info
from dist_relu.run.state import RunState
from dist_relu.run.tracing.trace import Trace
from dist_relu.run.trainer import Trainer

_OF_THE_RULE = (
    *("optimizer", "lr", "schedule", "momentum", "weight_decay", "no_decay", "epochs"),
    *("scale_lr", "base_batch_size", "warm_up"),
)
_COMPARED_BY_WHAT_THEY_ARE = ("source", "model_text", "dtype")
"""Data and models may have other names by now; it counts whether they are the same."""

_OF_OTHERS = tuple(
    field.name for field in fields(TrainingOptions) if field.name not in (*_OF_THE_RULE, *_COMPARED_BY_WHAT_THEY_ARE)
)


@final
@dataclass(frozen=True, kw_only=True)
class Beginning:
    """A run begins, or goes on, with these options.

    folder: of its checkpoints.  state: where it stands; None at the start.  before: the options of the run that goes
    on, where they are known.
    """

    command: click.Command
    options: TrainingOptions
    folder: Path | None = None
    state: RunState | None = None
    before: TrainingOptions | None = None

    @property
    def in_words(self) -> str:
        if self.state is None:
            return f"There is no checkpoint in {self.folder} yet: it begins anew."
        return f"Going on from step {self.state.step:,} of the run in {self.folder}."

    def trainer(
        self,
        task: Task,
        coordinator: Coordinator,
        watch: Watch | None,
        verify_every: int | None,
        trace: Trace | None,
    ) -> Trainer:
        """Stand where the run does.  Raises CheckpointError where it would become another run."""
        try:
            return task.trainer(coordinator, self.state, watch, verify_every, trace)
        except CheckpointError as error:
            others = _unequal(self.before, self.options, _COMPARED_BY_WHAT_THEY_ARE) if self.before else ()
            names = ", ".join(_told(self.command, *found) for found in others)
            raise CheckpointError(f"{error} {names}." if names else str(error)) from None


def beginning_of(context: click.Context, folder: Path | None, *, resume: bool) -> Beginning:
    """Find out where a run begins.  folder: of its checkpoints.  resume: whether there may be some.

    Seed and shards are those of a run that goes on unless they are given.
    Raises click.UsageError where there is a run that may not be there, and where options would make another one of it.
    """
    options, command = TrainingOptions.of(context), context.command
    if folder is None:
        return Beginning(command=command, options=options)
    state, info = newest_state(folder), _info(folder)
    if not resume and (state or info):
        where = f"a run that is at step {state.step:,}" if state else "a run"
        raise click.UsageError(
            f"--checkpoint {folder} holds {where}. Pass --resume to go on with it, or choose another folder."
        )
    before = options_of_run(info, command, folder) if info else None
    if not _is_given(context, "seed"):
        options = replace(options, seed=before.seed if before else state.seed if state else options.seed)
    if options.shards is None:
        options = replace(options, shards=before.shards if before else state.shards if state else None)
    if before:
        with usage_errors():
            _refuse(list(_differences(before, options)), command)
    return Beginning(command=command, options=options, folder=folder, state=state, before=before)


def options_of_run(info: RunInfo, command: click.Command, folder: Path) -> TrainingOptions:
    """The options with which a run was begun.  command: `dist-relu train`.  folder: that holds its run.json."""
    return TrainingOptions.of(context_of_run(info, command, folder))


def context_of_run(info: RunInfo, command: click.Command, folder: Path) -> click.Context:
    """The command line of a run, parsed anew.  Raises click.UsageError for options that make no sense."""
    where = folder / RUN_FILE
    defaults = defaults_from(info.options, command, str(where))
    try:
        return command.make_context(str(command.name), [], default_map=defaults)
    except click.UsageError as error:
        raise click.UsageError(f"{where}: {error.format_message()}") from None


def _differences(before: TrainingOptions, now: TrainingOptions) -> Iterator[tuple[str, Any, Any]]:
    rule = repr(before.rule())
    if repr(now.rule()) != rule:  # of a constant rate, for example, the number of epochs says nothing
        unequal = list(_unequal(before, now, _OF_THE_RULE))
        decisive = [found for found in unequal if repr(replace(before, **{found[0]: found[2]}).rule()) != rule]
        yield from decisive or unequal
    elif _plateau(before) != _plateau(now):  # both begin with a constant rate
        yield from _unequal(before, now, ("schedule",))
    yield from _unequal(before, now, _OF_OTHERS)


def _plateau(options: TrainingOptions) -> str:
    """What lowers the learning rate meanwhile; by which losses says the data set."""
    return repr(plateau_of(options.schedule, validates=False))


def _unequal(before: TrainingOptions, now: TrainingOptions, names: Sequence[str]) -> Iterator[tuple[str, Any, Any]]:
    for name in names:
        there, here = getattr(before, name), getattr(now, name)
        if there != here:
            yield name, there, here


def _refuse(differences: list[tuple[str, Any, Any]], command: click.Command) -> None:
    if differences:
        raise click.UsageError(
            f"--resume: {', '.join(_told(command, *found) for found in differences)}. It would be another run; pass "
            "the same, or another folder to --checkpoint."
        )


def _told(command: click.Command, name: str, there: object, here: object) -> str:
    (option,) = (param.opts[0] for param in command.params if param.name == name)
    return f"{option} was {_shown(there)} and is {_shown(here)}"


def _shown(value: object) -> str:
    return "not given" if value is None else str(value)


def _is_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) not in (ParameterSource.DEFAULT, None)


def _info(folder: Path) -> RunInfo | None:
    try:
        return read_run_info(folder)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise click.UsageError(f"{folder / RUN_FILE} can't be read: {error}.") from None

"""A run that was recorded, as `dist-relu reproduce` and `dist-relu at` make it again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar, final

import click

from dist_relu.cli.resuming import options_of_run
from dist_relu.cli.train import train
from dist_relu.cli.training import Task, TrainingOptions
from dist_relu.cli.types import DATA
from dist_relu.coordinator import Coordinator
from dist_relu.errors import CheckpointError
from dist_relu.run.info import RUN_FILE, RunInfo, read_run_info
from dist_relu.run.reproduce import check_same_run
from dist_relu.run.state import RunState
from dist_relu.run.trainer import Trainer

Command = TypeVar("Command", bound=Callable[..., Any])


def recorded_run_options(command: Command) -> Command:
    """The run that is meant, and where its data are."""
    command = click.option(
        "--data", "source", type=DATA, metavar="DATA", help="Where its data are now. Default: where they were."
    )(command)
    return click.argument("folder", metavar="RUN", type=click.Path(exists=True, file_okay=False, path_type=Path))(
        command
    )


@final
@dataclass(frozen=True)
class RecordedRun:
    """This run was written to `folder`, its log or that of its checkpoints, by `dist-relu train`."""

    folder: Path
    info: RunInfo
    options: TrainingOptions

    @classmethod
    def of(cls, folder: Path, source: str | None) -> Self:
        """Read what was run from a folder.  source: of its data, in place of the one it had.

        Raises click.UsageError for what is no such folder.
        """
        path = folder / RUN_FILE
        try:
            info = read_run_info(folder)
        except FileNotFoundError:
            raise click.UsageError(
                f"{folder} has no {RUN_FILE}; expected a folder that dist-relu train --log-dir or --checkpoint wrote."
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise click.UsageError(f"{path} can't be read: {error}.") from None
        options = replace(options_of_run(info, train, folder), shards=info.shards)
        return cls(folder, info, replace(options, source=source) if source else options)

    def task(self, coordinator: Coordinator) -> Task:
        """What it was to do, for these workers."""
        return self.options.read(saves=False).for_workers(coordinator.workers)

    def trainer(self, task: Task, coordinator: Coordinator, state: RunState | None = None) -> Trainer:
        """One that stands at the beginning of the run, or at `state`.

        Raises click.UsageError where data, model or options are others by now.
        """
        trainer = task.trainer(coordinator)
        try:
            check_same_run(self.info, trainer)
        except CheckpointError as error:
            raise click.UsageError(f"{self.folder}: {error}") from None
        return task.trainer(coordinator, state) if state else trainer

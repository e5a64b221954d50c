"""`dist-relu reproduce`: whether a run comes to the same bits again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dist_relu.cli.common import new_attempts, run_console, started, worker_options
from dist_relu.cli.progress import ProgressDisplay, StatusLine, counted, tell
from dist_relu.cli.recorded import RecordedRun, recorded_run_options
from dist_relu.cli.running import EXIT_FAILED
from dist_relu.run.info import different_surroundings
from dist_relu.run.reproduce import recorded_state, run_again

_EXAMPLES = """
\b
Examples:
  dist-relu train --log-dir runs/a && dist-relu reproduce runs/a --workers 1
  dist-relu reproduce runs/b --backend ray --workers 3
"""


@click.command(epilog=_EXAMPLES)
@recorded_run_options
@worker_options
def reproduce(folder: Path, source: str | None, **workers: Any) -> None:
    """Run a run again, and tell whether it has the same bits.

    RUN is a folder that --log-dir or --checkpoint of `dist-relu train` named. Exit code 1 says that bits differ: the
    first step with another loss is named, and what is not as it was of the versions of programs and the processor.
    """
    run = RecordedRun.of(folder, source)
    recorded = recorded_state(folder)
    if recorded is None:
        raise click.UsageError(
            f"{folder} does not hold the losses of a run: it goes on still, or was killed. Those of --checkpoint do, "
            "once there is one."
        )
    console = run_console(new_attempts(), quiet=False)
    with StatusLine(console) as status, started(**workers) as coordinator:
        status.phase("Preparing")
        task = run.task(coordinator)
        with run.trainer(task, coordinator) as trainer:
            display = ProgressDisplay(
                console,
                status,
                recorded.step,
                trainer.steps_per_epoch,
                has_accuracy=trainer.model.predicts != "numbers",
            )
            difference = run_again(
                trainer,
                recorded.step,
                recorded,
                display.show,
                plateau=task.plateau(),
                validation=task.data.validation,
            )
        here = f"{counted(coordinator.workers, 'worker')} ({coordinator.backend})"
    there = f"{counted(run.info.workers, 'worker')} ({run.info.backend})"
    if difference is None:
        tell(
            console,
            f"Equal to the bit: {counted(recorded.step, 'step')}, parameters {recorded.params_sha256[:16]}, with "
            f"{here} as with {there}.",
        )
        return
    others = "; ".join(different_surroundings(run.info)) or "Versions of programs and the processor are the same"
    tell(console, f"Not the same bits: {difference}. {others}.")
    raise SystemExit(EXIT_FAILED)

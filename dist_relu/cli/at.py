"""`dist-relu at`: a model as it was after any step of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dist_relu.checkpoint import save_model
from dist_relu.cli.common import check_model_path, new_attempts, run_console, started, worker_options
from dist_relu.cli.progress import ProgressDisplay, StatusLine, tell
from dist_relu.cli.recorded import RecordedRun, recorded_run_options
from dist_relu.cli.running import EXIT_FAILED
from dist_relu.cli.types import FILE
from dist_relu.run.info import different_surroundings
from dist_relu.run.reproduce import nearest_state, recorded_state, run_again

_EXAMPLES = """
\b
Examples:
  dist-relu at runs/a --step 41237 --save m.safetensors
"""


@click.command(epilog=_EXAMPLES)
@recorded_run_options
@click.option("--step", type=click.IntRange(0), required=True, help="How many steps are complete then.")
@click.option("--save", metavar="FILE", type=FILE, required=True, help="Write the model to FILE, as safetensors.")
@worker_options
def at(folder: Path, source: str | None, step: int, save: Path, **workers: Any) -> None:
    """Write the model of a run as it was after any of its steps.

    RUN is a folder that --log-dir or --checkpoint of `dist-relu train` named. Steps are taken again from the nearest
    checkpoint before, and their losses compared: exit code 1 says that they are not those of the run. With --ema-decay
    it is the average of the weights that is written.
    """
    check_model_path(save)
    run = RecordedRun.of(folder, source)
    recorded = recorded_state(folder)
    if recorded is None:
        raise click.UsageError(f"{folder} does not hold the losses of a run: it goes on still, or was killed.")
    if step > recorded.step:
        raise click.UsageError(f"--step {step}: {folder} tells of {recorded.step:,} steps.")
    begin = nearest_state(folder, run.info, step)
    console = run_console(new_attempts(), quiet=False)
    with StatusLine(console) as status, started(**workers) as coordinator:
        status.phase("Preparing")
        task = run.task(coordinator)
        plateau = task.plateau()
        with run.trainer(task, coordinator, begin) as trainer:
            display = ProgressDisplay(
                console, status, step, trainer.steps_per_epoch, has_accuracy=trainer.model.predicts != "numbers"
            )
            difference = run_again(
                trainer,
                step,
                recorded,
                display.show,
                plateau=plateau,
                validation=task.data.validation if plateau else None,
            )
            model = trainer.average or trainer.model
    if difference:
        others = "; ".join(different_surroundings(run.info)) or "Versions of programs and the processor are the same"
        tell(console, f"This is not the run: {difference}. {others}.")
        raise SystemExit(EXIT_FAILED)
    save_model(model, save)
    since = f"the checkpoint of step {begin.step:,}" if begin else "the beginning"
    tell(console, f"Wrote {save}: the weights after step {step:,}, from {since} on. SHA-256 {model.sha256()[:16]}.")

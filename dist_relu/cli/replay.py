"""`dist-relu replay`: where another rule would have stopped a run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from dist_relu.cli.common import check_writable, tell_left_out, usage_errors
from dist_relu.cli.types import MONITOR, NOT_NEGATIVE, json_option
from dist_relu.core.files import write_json
from dist_relu.engine.results import Validated
from dist_relu.reports.logs import STEPS_FILE, read_logs
from dist_relu.run.checkpoints import newest_state
from dist_relu.run.monitoring import MONITORS, is_of_validation
from dist_relu.run.replay import Judged, Replayed, epochs_of, judged_by, replay
from dist_relu.run.state_file import load_state


@click.command("replay", epilog="\b\nExample:\n  dist-relu replay runs/a --patience 5 --min-delta 0.001\n")
@click.argument("run", metavar="RUN", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--monitor",
    type=MONITOR,
    metavar="NAME",
    default=MONITORS[0],
    show_default=True,
    help="What the run is judged by: validation_loss, validation_accuracy, or what else validations have measured, as "
    "validation_f1_macro; or loss or accuracy of the epochs of training.",
)
@click.option(
    "--patience",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Stop after so many validations (or epochs) in a row that are no better.",
)
@click.option(
    "--min-delta", type=NOT_NEGATIVE, default=0.0, show_default=True, help="Better is what is better by more than this."
)
@json_option
def show_replay(run: Path, monitor: str, patience: int, min_delta: float, path: Path | None) -> None:
    """Say where early stopping would have ended a RUN that went on for longer.

    RUN: a folder that `train --log-dir` wrote, also of a run that still goes on, or a
    folder of checkpoints, or one of them.
    """
    check_writable("--json", path)
    with usage_errors():
        judged = _judged(run, monitor)
        if not judged:
            what = "validations" if is_of_validation(monitor) else "complete epochs"
            raise click.UsageError(f"{run} holds no {monitor} of any {what}.")
        found = replay(judged, monitor, patience, min_delta)
    click.echo(_told(found, monitor, f"--patience {patience} --min-delta {min_delta:g}"))
    if path:
        write_json(path, {"monitor": monitor, "patience": patience, "min_delta": min_delta, **asdict(found)})


def _judged(run: Path, monitor: str) -> list[Judged]:
    """Read what a run was judged by.  run: a log folder, a folder of checkpoints, or one of them."""
    if (run / STEPS_FILE).is_file():
        logs = read_logs(run)
        tell_left_out(run, logs.left_out)
        return judged_by(monitor, logs.validations, logs.epochs)
    state = newest_state(run) if run.is_dir() else load_state(run)
    if state is None:
        raise click.UsageError(f"{run} has no {STEPS_FILE}; expected a folder of train --log-dir, or checkpoints.")
    return judged_by(monitor, [Validated(**validated) for validated in state.validations], epochs_of(state))


def _told(found: Replayed, monitor: str, rule: str) -> str:
    """What was found, in sentences."""
    every = "validations" if is_of_validation(monitor) else "epochs"
    if found.best is None or found.best_of_all is None:
        return f"None of {found.num_judged} {every} has a {monitor} that is a finite number."
    best = f"the best {monitor} {found.best.value:.6g} {_place(found.best)}"
    if found.stopped is None:
        return f"{rule} would not have stopped this run of {found.num_judged} {every}; it has {best}."
    told = f"{rule} would have stopped {_place(found.stopped)}, with {best}."
    if found.best_of_all.value != found.best.value:
        told += f" The whole run came to {found.best_of_all.value:.6g} {_place(found.best_of_all)}."
    return told


def _place(judged: Judged) -> str:
    return f"after epoch {judged.epoch}" if judged.step is None else f"after step {judged.step} (epoch {judged.epoch})"

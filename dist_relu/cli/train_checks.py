"""What `dist-relu train` refuses before it does anything: options that don't go together, and places to write to."""

from __future__ import annotations

from pathlib import Path

import click

from dist_relu.cli.common import check_model_path, check_writable, make_folder, usage_errors
from dist_relu.cli.metric_tables import names_in
from dist_relu.cli.resuming import Beginning
from dist_relu.cli.training import Task
from dist_relu.cli.training_run import Outputs
from dist_relu.engine.arguments import loss_for
from dist_relu.engine.scoring import checked_metrics
from dist_relu.metrics.named import is_number
from dist_relu.reports.log_writer import check_is_free, check_is_of_run, remove_logs_without_checkpoint
from dist_relu.run.monitoring import MONITORS, metric_of

_GO_WITH = (
    ("watch_every", "log_dir", "nothing is watched"),
    ("checkpoint_every", "checkpoint", "there are no checkpoints"),
    ("keep", "checkpoint", "there are no checkpoints"),
    ("resume", "checkpoint", "there is nothing to go on from"),
    ("min_delta", "patience", "nothing stops"),
    ("base_batch_size", "scale_lr", "the learning rate stays as it is"),
    ("warm_up", "scale_lr", "the learning rate stays as it is"),
    ("groups", "compress", "there are no groups"),
    ("trace_steps", "trace", "nothing is traced"),
    ("replicas", "local_steps", "they are never averaged"),
    ("local_steps", "replicas", "there is nothing to average"),
    ("outer_lr", "replicas", "there is nothing to average"),
    ("outer_momentum", "replicas", "there is nothing to average"),
)
"""Options that have no effect without another, and why."""


def check_together(context: click.Context) -> None:
    """Refuse options that have no effect without another."""
    for name, needed, why in _GO_WITH:
        if context.params[name] not in (None, False) and context.params[needed] is None:
            (option,) = (param.opts[0] for param in context.command.params if param.name == name)
            raise click.UsageError(f"{option} goes with --{needed.replace('_', '-')}: {why} without.")


def check_validates(context: click.Context, task: Task) -> None:
    """Refuse to wait for validations that there won't be."""
    for name in ("patience", "monitor"):
        if context.params[name] is not None and task.data.validation is None:
            raise click.UsageError(
                f"--{name} goes with --validation: {task.options.source} has no samples of its own to validate with."
            )


def metrics_to_measure(task: Task, names: str | None, monitor: str | None) -> list[str]:
    """What is to be measured, also for `monitor`.  Raises click.UsageError for what is none, or not of such targets."""
    wanted = names_in(names)
    if monitor is not None and monitor not in MONITORS and metric_of(monitor) not in wanted:
        wanted.append(metric_of(monitor))
    with usage_errors():
        checked_metrics(wanted, task.model, task.data.test, loss_for(task.data.test, task.loss))
    for name in wanted:
        if not is_number(name):
            raise click.UsageError(f"--metrics {name}: expected metrics that are a single number, such as f1_macro.")
    return wanted


def check_paths(outputs: Outputs) -> None:
    """Fail before the work rather than after it.  Makes the folders of the run."""
    check_writable("--json", outputs.report)
    check_model_path(outputs.save)
    check_writable("--trace", outputs.trace)
    if outputs.save is not None and outputs.save == outputs.report:
        raise click.UsageError("--save and --json name the same file.")
    if outputs.log_dir and outputs.log_dir == outputs.checkpoint:
        raise click.UsageError("--log-dir and --checkpoint name the same folder.")
    for option, folder in (("--log-dir", outputs.log_dir), ("--checkpoint", outputs.checkpoint)):
        if folder:
            make_folder(option, folder)


def check_log_folder(folder: Path | None, begin: Beginning) -> None:
    """Refuse to write over the logs of another run."""
    if folder is None:
        return
    if begin.folder and begin.before and begin.state is None:
        remove_logs_without_checkpoint(folder, begin.folder)
    try:
        check_is_free(folder)
    except ValueError as error:
        if begin.state is None:
            raise click.UsageError(str(error)) from None
        with usage_errors():
            check_is_of_run(folder, begin.state)

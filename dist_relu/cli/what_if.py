"""`dist-relu what-if`: what changes of a training do to accuracy, to time, and to what is sent."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from importlib.util import find_spec
from math import isnan
from pathlib import Path
from typing import Any

import click
import numpy as np
from click.core import ParameterSource
from rich.console import Console
from rich.table import Table

from dist_relu.cli.common import WORKER_OPTIONS, make_folder, new_attempts, started, usage_errors
from dist_relu.cli.compression import parse_compression
from dist_relu.cli.parsing import parse_words
from dist_relu.cli.progress import StatusLine
from dist_relu.cli.running import Interrupted
from dist_relu.cli.tables import print_table
from dist_relu.cli.train import train
from dist_relu.cli.training import Task, TrainingOptions
from dist_relu.cli.types import AUTO, FOLDER, GroupedCommand
from dist_relu.comm.buckets import BUCKET_BYTES
from dist_relu.coordinator import Coordinator
from dist_relu.core.files import strict, write_file
from dist_relu.data import Dataset
from dist_relu.errors import BackendError
from dist_relu.reports.plots import Change, draw_what_if
from dist_relu.reports.plots.style import COLUMN, PLAIN
from dist_relu.run.trainer import Trainer
from dist_relu.scaling.what_if import Outcome, read_outcomes, what_if

_NONE = "no change"
_PICTURES = {"what-if.png": PLAIN, "what-if.pdf": COLUMN}
_SAME = (*WORKER_OPTIONS, "source", "epochs", "seed")
"""Parameters of all trainings that are compared."""
_MAY_BE_TRIED = ("workers", "shards", "bucket")


@click.command(
    "what-if",
    cls=GroupedCommand,
    context_settings={"ignore_unknown_options": True},
    epilog="\b\nExamples:\n"
    '  dist-relu what-if --change "--compress bf16" --change "--compress topk:0.01" --output what-if --shards 8\n'
    '  dist-relu what-if --change "--batch-size 1024 --scale-lr linear" --output what-if --data mnist --epochs 5\n',
)
@click.option(
    "--change",
    "changes",
    multiple=True,
    required=True,
    metavar="OPTIONS",
    help="Options of dist-relu train that are tried, in quotes. May be given several times.",
)
@click.option(
    "--seeds", type=click.IntRange(1), default=3, show_default=True, help="Train from so many seeds, from --seed on."
)
@click.option(
    "--output",
    type=FOLDER,
    required=True,
    metavar="FOLDER",
    help="Write to FOLDER what came of it: as JSON and as a picture (.pdf: for a column of a paper).",
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS OF dist-relu train]...")
def what_if_command(changes: Sequence[str], seeds: int, output: Path, options: Sequence[str]) -> None:
    """Train with and without each change, and show what it does to accuracy, time and gradients.

    All other options are those of dist-relu train. With the same shards, what becomes of accuracy is the same on any
    number of workers; so what many workers would do is tried on few. Whatever ends it, FOLDER keeps all trainings that
    were complete, and the same command goes on.
    """
    with usage_errors():
        words = {text: parse_words("--change", text) for text in changes}
    parsed = {_NONE: _parsed(options), **{text: _parsed([*options, *more]) for text, more in words.items()}}
    base = parsed[_NONE]
    for text, context in parsed.items():
        _check_change(text, context, base)
    make_folder("--output", output)
    workers = {name: base.params[name] for name in WORKER_OPTIONS}
    ended: KeyboardInterrupt | BackendError | None = None
    with StatusLine(Console()) as status, started(**workers) as coordinator:
        status.phase("Reading data")
        tasks: dict[str, Task] = {}
        for name, context in parsed.items():
            of_change = TrainingOptions.of(context)
            with usage_errors():
                of_change.check(coordinator.workers)
            tasks[name] = of_change.read(saves=False).for_workers(coordinator.workers)

        def show(one: Outcome, done: int, of: int) -> None:
            status.phase(f"Trained {done} of {of}: {one.change}")

        status.phase("Training")
        first = tasks[_NONE].options.seed
        wanted = range(first, first + seeds)
        try:
            with usage_errors():
                what_if(
                    coordinator,
                    {
                        name: _made_from_seeds(coordinator, task, parsed[name].params["bucket"] or BUCKET_BYTES)
                        for name, task in tasks.items()
                    },
                    tasks[_NONE].data.test,
                    epochs=tasks[_NONE].options.epochs,
                    seeds=wanted,
                    folder=output,
                    on_outcome=show,
                )
        except (KeyboardInterrupt, BackendError) as error:
            ended = error
    found = read_outcomes(output, tasks, wanted)
    whole = [one for one in found if sum(one.seed == other.seed for other in found) == len(tasks)]
    if whole:
        _report(whole, tasks, output, options)
    if ended:
        kept = f"{output} keeps {len(found)} of {len(tasks) * seeds} trainings, and the same command goes on"
        if isinstance(ended, KeyboardInterrupt):
            raise Interrupted(f"interrupted; {kept}")
        click.echo(f"{kept}.", err=True)
        raise ended


def _report(found: Sequence[Outcome], tasks: Mapping[str, Task], output: Path, options: Sequence[str]) -> None:
    """Show and write what came of all changes, from the same seeds."""
    megabytes = {name: _bytes_per_epoch(task) / 1e6 for name, task in tasks.items()}
    has_classes = tasks[_NONE].data.test.has_classes
    print_table(table(found, megabytes, has_classes=has_classes))
    attempts = new_attempts()
    with attempts.writing(output / "what-if.json"):
        rows = [{**asdict(one), "megabytes_per_epoch": megabytes[one.change]} for one in found]
        write_file(output / "what-if.json", json.dumps({"options": [*options], "runs": strict(rows)}, indent=1) + "\n")
    if find_spec("matplotlib"):
        scale, score = (100, "accuracy, %") if has_classes else (1, "loss")
        shown = [
            Change(
                name,
                [scale * one for one in _scores(found, name)],
                [one.epoch_s for one in found if one.change == name],
                megabytes[name],
            )
            for name in tasks
        ]
        for picture, form in _PICTURES.items():
            with attempts.writing(output / picture):
                draw_what_if(shown, output / picture, score=score, form=form, about=shlex.join(options))
    else:
        click.echo("No picture: it needs matplotlib. Install it: pip install 'dist_relu[plot]'.", err=True)
    attempts.check()


def _parsed(arguments: Sequence[str]) -> click.Context:
    """The command line of a training.  Raises click.UsageError for options of it that have nothing to do here."""
    context = train.make_context("train", [*arguments])
    useful = {*(field.name for field in fields(TrainingOptions)), *WORKER_OPTIONS, "bucket", "config"}
    for param in context.command.params:
        is_given = context.get_parameter_source(str(param.name)) is ParameterSource.COMMANDLINE
        if is_given and param.name not in useful:
            raise click.UsageError(f"{param.opts[0]} has no effect on what training comes to. Leave it away.")
        if param.name in _MAY_BE_TRIED and context.params[param.name] == AUTO:
            raise click.UsageError(
                f"{param.opts[0]} {AUTO}: nothing is tried here before trainings are compared. "
                f"Pass {param.opts[0]} {param.make_metavar(context)}."
            )
    return context


def _check_change(text: str, context: click.Context, base: click.Context) -> None:
    """Refuse what can't differ between trainings that are compared.  Raises click.UsageError."""
    if not text.strip():
        raise click.UsageError("--change '': expected options of dist-relu train.")
    for param in context.command.params:
        if param.name in _SAME and context.params[param.name] != base.params[param.name]:
            raise click.UsageError(
                f"--change {text!r}: {param.opts[0]} is the same for all trainings. Pass it outside of --change."
            )


def _made_from_seeds(coordinator: Coordinator, task: Task, bucket_bytes: int) -> Callable[[int], Trainer]:
    def make(seed: int) -> Trainer:
        """Begin with a model of its own."""
        of_seed = replace(task, options=replace(task.options, seed=seed), model=task.model.blueprint())
        trainer = of_seed.trainer(coordinator)
        trainer.bucket_bytes = bucket_bytes
        return trainer

    return make


def _bytes_per_epoch(task: Task) -> int:
    """What the gradients of a group take in an epoch, each sent once; or replicas' parameters, as often as averaged."""
    options, model = task.options, task.model
    compression = parse_compression(options.compress, options.groups)
    of_step = compression.bytes_sent(model) if compression else model.dtype.itemsize * model.num_params
    return of_step * _num_steps(task.data.train, options) // (options.local_steps or 1)


def _num_steps(data: Dataset, options: TrainingOptions) -> int:
    return -(-len(data) // (options.batch_size * options.accumulate))


def _scores(found: Sequence[Outcome], name: str) -> list[float]:
    """By the order of seeds."""
    return [one.score for one in sorted(found, key=lambda one: one.seed) if one.change == name]


def table(found: Sequence[Outcome], megabytes: dict[str, float], *, has_classes: bool) -> Table:
    """A line for each change: means over the seeds, and from where to where the difference goes, seed by seed."""
    score, scale, unit = ("accuracy", 100, "%") if has_classes else ("test loss", 1, "")
    shown = Table(box=None, pad_edge=False)
    shown.add_column("change", no_wrap=False)
    for name in ("loss", score, "difference", "s/epoch", "MB/epoch"):
        shown.add_column(name, justify="right", no_wrap=True)
    without = np.array(_scores(found, _NONE))
    for name, each in megabytes.items():
        runs = [one for one in found if one.change == name]
        scores = np.array(_scores(found, name))
        differences = scale * (scores - without)
        words: list[Any] = [name, "diverged", "", ""]
        if not any(isnan(one) for one in scores):
            spread = f" ({differences.min():+.2f} to {differences.max():+.2f})" if len(scores) > 1 else ""
            words = [
                name,
                f"{np.mean([one.loss for one in runs]):.4f}",
                f"{scale * scores.mean():.2f}{unit}" if has_classes else f"{scores.mean():.4g}",
                "" if name == _NONE else f"{differences.mean():+.2f}{spread}",
            ]
        shown.add_row(*words, f"{np.median([one.epoch_s for one in runs]):.3g}", f"{each:.3g}")
    return shown

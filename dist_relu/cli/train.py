"""`dist-relu train`: a network learns, and shows on unseen samples what it can."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import numpy as np

from dist_relu.checkpoint import check_can_be_saved, save_model
from dist_relu.cli.common import (
    check_model_path,
    check_writable,
    data_option,
    make_folder,
    new_attempts,
    run_console,
    started,
    usage_errors,
    worker_options,
    wrote,
)
from dist_relu.cli.options import (
    batch_option,
    dtype_option,
    epochs_option,
    lr_option,
    model_option,
    momentum_option,
    optimizer_option,
    schedule_option,
    shards_option,
)
from dist_relu.cli.parsing import (
    NORMALIZATIONS,
    OPTIMIZERS,
    normalized,
    parse_augment,
    parse_model,
    parse_schedule,
)
from dist_relu.cli.progress import ProgressDisplay, StatusLine, counted, loss_text, tell
from dist_relu.cli.running import Interrupted
from dist_relu.cli.types import FILE, NOT_NEGATIVE, POSITIVE, SEED, SHARE, GroupedCommand, choice
from dist_relu.coordinator import Coordinator
from dist_relu.core import machine
from dist_relu.core.files import Attempts, write_json
from dist_relu.data import Dataset, Split, load
from dist_relu.engine.arguments import default_loss
from dist_relu.engine.results import FitResult
from dist_relu.engine.watch.events import Progress
from dist_relu.engine.watch.records import Watch
from dist_relu.errors import TrainingDiverged
from dist_relu.nn import CrossEntropy, Sequential, summary
from dist_relu.optim import Optimizer
from dist_relu.partition import check_fit
from dist_relu.reports.log_writer import LogWriter, check_is_free
from dist_relu.reports.logs import MODEL_FILE, RunInfo

_EXAMPLES = """
\b
Examples:
  dist-relu train
  dist-relu train --data mnist --model cnn --epochs 3 --save model.safetensors
  dist-relu train --data samples.npz --model mlp:64 --optimizer adam --log-dir runs/a
  mpirun -n 4 dist-relu train --shards 4
"""


@click.command(cls=GroupedCommand, epilog=_EXAMPLES)
@data_option
@model_option
@click.option(
    "--normalize",
    type=choice(NORMALIZATIONS),
    default="none",
    show_default=True,
    help="Scale samples. standard: every channel has mean 0 and variance 1 over those that are trained on. The model "
    "keeps the numbers for it, so that evaluate, predict and analyze do the same.",
)
@epochs_option
@batch_option
@optimizer_option
@lr_option
@schedule_option
@momentum_option
@click.option("--weight-decay", type=NOT_NEGATIVE, default=0.0, show_default=True, help="How much weights shrink.")
@click.option("--clip-norm", type=POSITIVE, help="Scale gradients down to this Euclidean norm.")
@click.option("--clip-value", type=POSITIVE, help="Cut elements of gradients to this magnitude.")
@click.option("--accumulate", type=click.IntRange(1), default=1, show_default=True, help="Batches in one step.")
@click.option("--ema-decay", type=SHARE, help="Test and save an exponential average of the weights, with this decay.")
@click.option("--label-smoothing", type=SHARE, default=0.0, show_default=True, help="Smooth class numbers by so much.")
@click.option(
    "--mixup", type=NOT_NEGATIVE, default=0.0, show_default=True, help="Mix samples, with this alpha; 0 mixes none."
)
@click.option("--augment", help="Change images at random: crop:PIXELS, flip, or crop:PIXELS,flip.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Fixes all that is random.")
@dtype_option
@worker_options
@shards_option
@click.option("--json", "--report", "report", metavar="FILE", type=FILE, help="Write the results to FILE as JSON.")
@click.option("--save", metavar="FILE", type=FILE, help="Write the model to FILE, as safetensors.")
@click.option(
    "--log-dir",
    metavar="FOLDER",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write to a new FOLDER what is run, what is seen of it meanwhile, and the model; for `dist-relu report`, "
    "`dist-relu plot` and TensorBoard.",
)
@click.option("--watch-every", type=click.IntRange(1), help="Look at one in so many steps. Default: 10.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
def train(
    source: str,
    model_text: str,
    normalize: str,
    epochs: int,
    batch_size: int,
    optimizer: str,
    lr: float | None,
    schedule: str,
    momentum: float,
    weight_decay: float,
    clip_norm: float | None,
    clip_value: float | None,
    accumulate: int,
    ema_decay: float | None,
    label_smoothing: float,
    mixup: float,
    augment: str | None,
    seed: int,
    dtype: str | None,
    shards: int | None,
    report: Path | None,
    save: Path | None,
    log_dir: Path | None,
    watch_every: int | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Train a network and test it on unseen samples.

    Ctrl-C ends it early: what was asked for is written then, with the weights after the last complete step.
    """
    attempts = new_attempts()
    console = run_console(attempts, quiet=quiet)
    _check_paths(report, save, log_dir, watch_every)
    lr = OPTIMIZERS[optimizer].lr if lr is None else lr
    with usage_errors():
        rate = parse_schedule(schedule, lr, epochs)
        rule = OPTIMIZERS[optimizer].make(rate, momentum, weight_decay)
        changes = parse_augment(augment, mixup)
    _check_shards(batch_size, shards, options["workers"])
    with StatusLine(console) as status, started(**options) as coordinator:
        status.phase(f"Reading {source}")
        data, model = _read(source, model_text, normalize, dtype, saves=save is not None)  # the workers start meanwhile
        loss = _loss(data, label_smoothing)
        status.phase("Starting workers")
        shards = shards or coordinator.workers
        check_fit(len(data.train), batch_size, shards, coordinator.workers)
        with LogWriter(log_dir, attempts) if log_dir else nullcontext() as logs:
            if logs:
                logs.run(_run_info(coordinator, model, rule, data, shards, lr))
            workers = f"{counted(coordinator.workers, 'worker')} ({coordinator.backend})"
            tell(console, f"{_task(data)} {optimizer}, lr {lr:g}, {schedule}. {_sizes(data.train, model)} {workers}.")
            status.phase("Preparing")
            display = ProgressDisplay(console, status, epochs, has_classes=data.train.has_classes)
            try:
                result = coordinator.fit(
                    model,
                    data.train,
                    rule,
                    epochs=epochs,
                    batch_size=batch_size,
                    shards=shards,
                    seed=seed,
                    loss=loss,
                    clip_norm=clip_norm,
                    clip_value=clip_value,
                    accumulate=accumulate,
                    ema_decay=ema_decay,
                    augment=changes,
                    watch=Watch(watch_every or 10, logs.step, logs.epoch) if logs else None,
                    on_progress=display.show,
                )
                model = result.average or model
                if save:
                    with attempts.writing(save):
                        save_model(model, save)
                status.phase("Testing")
                test = coordinator.evaluate(model, data.test)
            except KeyboardInterrupt as stop:
                if display.last is None or not (save or report or log_dir):
                    raise
                model = getattr(stop, "average", None) or model
                about = _about(coordinator, model, shards, seed) | _numbers_until(display.last)
                models = [path for path in (save, log_dir / MODEL_FILE if log_dir else None) if path]
                _write(attempts, model, models, about, report)
                told = f"interrupted in epoch {display.last.epoch + 1} of {epochs}"
                raise Interrupted(told + wrote(attempts, save, report, log_dir)) from stop
            numbers = _about(coordinator, model, shards, seed) | _numbers(result)
            numbers |= {"test_loss": test.loss, "test_accuracy": test.accuracy}
            if logs:
                logs.finish(model, numbers)
            if not np.isfinite(test.loss):
                raise TrainingDiverged(f"The loss on unseen samples is {test.loss}. Lower the learning rate.")
        _write(attempts, model, [], numbers, report)
    tell(
        console,
        f"{tested(test.accuracy, test.loss, len(data.test))} Trained on {len(data.train):,} for "
        f"{counted(epochs, 'epoch')} in {result.seconds:.1f} s with {workers}: {result.samples_per_second:,.0f} "
        f"samples/s, {np.median(result.step_seconds) * 1e3:.2f} ms a step.",
    )
    attempts.check()


def tested(accuracy: float | None, loss: float, num_samples: int) -> str:
    """What came out of a test, as a sentence."""
    if accuracy is None:
        return f"Test loss {loss:.5g} on {num_samples:,} unseen samples."
    return f"Test accuracy {accuracy:.2%} on {num_samples:,} unseen samples (loss {loss_text(loss)})."


def _check_paths(report: Path | None, save: Path | None, log_dir: Path | None, watch_every: int | None) -> None:
    """Fail before the work rather than after it.  Makes the folder of the run."""
    check_writable("--json", report)
    check_model_path(save)
    if save is not None and save == report:
        raise click.UsageError("--save and --json name the same file.")
    if log_dir is None:
        if watch_every is not None:
            raise click.UsageError("--watch-every goes with --log-dir: nothing is watched without.")
        return
    make_folder("--log-dir", log_dir)
    with usage_errors():
        check_is_free(log_dir)


def _check_shards(batch_size: int, shards: int | None, workers: int | None) -> None:
    if workers and not shards and workers > batch_size:
        raise click.UsageError(
            f"--workers {workers}: a batch of {batch_size} has no sample for each of them. "
            f"Pass --workers <= {batch_size} or --batch-size >= {workers}."
        )
    if workers or shards:
        check_fit(batch_size, batch_size, shards or workers or 1, workers or 1)


def _task(data: Split) -> str:
    if data.train.has_classes:
        return f"{counted(data.num_outputs(), 'class')}, cross-entropy;"
    return f"Regression ({counted(data.num_outputs(), 'output')}), mean squared error;"


def _sizes(data: Dataset, model: Sequential) -> str:
    x = data.x
    shape = "x".join(map(str, x.shape[1:]))
    return (
        f"{len(data):,} samples of {shape} numbers from {x.min():.4g} to {x.max():.4g} (mean "
        f"{x.mean(dtype=float):.4g}), {model.num_params:,} parameters,"
    )


def _read(source: str, model_text: str, normalize: str, dtype: str | None, *, saves: bool) -> tuple[Split, Sequential]:
    """The data, and a model that is built for them.  saves: it will be saved."""
    with usage_errors():
        data = load(source)
        model = normalized(normalize, parse_model(model_text, data, dtype), data).build(data.train.x.shape[1:])
        for part in data.parts:
            default_loss(part).check(part.y, model.output_shape)
        if saves:
            check_can_be_saved(model)
    return data, model


def _loss(data: Split, label_smoothing: float) -> CrossEntropy | None:
    """The loss that was asked for; None for that which suits the data."""
    if label_smoothing and not data.train.has_classes:
        raise click.UsageError("--label-smoothing is for class numbers, but these targets are real numbers.")
    return CrossEntropy(label_smoothing) if label_smoothing else None


def _write(
    attempts: Attempts, model: Sequential, models: Sequence[Path], numbers: dict[str, Any], report: Path | None
) -> None:
    for path in models:
        with attempts.writing(path):
            save_model(model, path)
    if report:
        with attempts.writing(report):
            write_json(report, numbers)


def _run_info(
    coordinator: Coordinator, model: Sequential, rule: Optimizer, data: Split, shards: int, lr: float
) -> RunInfo:
    """What the present command runs."""
    context = click.get_current_context()
    options = {param.opts[0].lstrip("-"): context.params[str(param.name)] for param in context.command.params}
    options["lr"] = lr
    return RunInfo(
        {name: str(value) if isinstance(value, Path) else value for name, value in options.items()},
        repr(model),
        summary(model),
        repr(rule),
        len(data.train),
        len(data.test),
        coordinator.backend,
        coordinator.workers,
        coordinator.nodes,
        shards,
        datetime.now(UTC).isoformat(timespec="seconds"),
        machine.cpu_name(),
        machine.blas_name(),
        machine.versions(),
    )


def _about(coordinator: Coordinator, model: Sequential, shards: int, seed: int) -> dict[str, Any]:
    """What a report says of what was run, and of the model."""
    return {
        "backend": coordinator.backend,
        "workers": coordinator.workers,
        "nodes": coordinator.nodes,
        "shards": shards,
        "seed": seed,
        "params_sha256": model.sha256(),
        "versions": machine.versions(),
        "cpu": machine.cpu_name(),
        "blas": machine.blas_name(),
    }


def _numbers(result: FitResult) -> dict[str, Any]:
    return {
        "interrupted": False,
        "epochs": len(result.epochs),
        "steps": len(result.losses),
        "train_loss": result.epochs[-1].loss,
        "seconds": result.seconds,
        "samples_per_second": result.samples_per_second,
        "step_ms_median": float(np.median(result.step_seconds) * 1e3),
    }


def _numbers_until(last: Progress) -> dict[str, Any]:
    """Of a run that was interrupted: what was last heard of it."""
    return {
        "interrupted": True,
        "epochs": last.epoch,
        "steps": last.step,
        "train_loss": last.loss if np.isfinite(last.loss) else None,
        "samples_per_second": last.samples_per_second,
        "test_loss": None,
        "test_accuracy": None,
    }

"""The command line: `dist-relu train | evaluate | predict | rl | analyze | plot | bench | doctor`.

Options become objects here and in `options`; everything below takes objects. What the user did wrong is told in one
line, with exit code 2; a run that failed, in one line with exit code 1.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console

from dist_relu import machine
from dist_relu.analyze import analyze
from dist_relu.arguments import default_loss
from dist_relu.bench.commands import bench
from dist_relu.checkpoint import check_can_be_saved, load_model, save_model
from dist_relu.command_parts import (
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    check_writable,
    data_option,
    make_folder,
    new_attempts,
    run_program,
    usage_errors,
    worker_options,
)
from dist_relu.coordinator import Coordinator, start
from dist_relu.data import Split, load, load_samples
from dist_relu.doctor.command import doctor
from dist_relu.errors import TrainingDiverged
from dist_relu.files import write_file, write_json
from dist_relu.learn_command import learn
from dist_relu.logs import LogWriter, RunInfo, check_is_free
from dist_relu.nn import CrossEntropy, Sequential, summary
from dist_relu.optim import Optimizer
from dist_relu.options import DEFAULT_LR, MODEL_FORMS, OPTIMIZERS, parse_augment, parse_model, parse_schedule
from dist_relu.partition import check_fit
from dist_relu.plot import plot
from dist_relu.progress import ProgressDisplay
from dist_relu.report.command import report
from dist_relu.results import FitResult
from dist_relu.watching import Watch


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.  Under mpirun only rank 0 does; the others serve it."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # doctor speaks with the ranks in its own way
    run_program(program, arguments, name="dist-relu", serves=list(arguments[:1]) != ["doctor"])


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dist_relu")
def program() -> None:
    """Train ReLU networks data-parallel, with the same bits on any number of workers."""


@program.command()
@data_option
@click.option(
    "--model",
    "model_text",
    default="mlp:256,128",
    show_default=True,
    help=f"{MODEL_FORMS}, or file.py:function.",
)
@click.option("--epochs", type=click.IntRange(1), default=20, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True, help="Over all workers.")
@click.option("--optimizer", type=click.Choice(list(OPTIMIZERS)), default="sgd", show_default=True)
@click.option("--lr", type=POSITIVE, help="Learning rate. Default: one that suits the optimizer.")
@click.option("--momentum", type=SHARE, default=0.9, show_default=True, help="For sgd, nesterov, rmsprop, lars.")
@click.option("--weight-decay", type=NOT_NEGATIVE, default=0.0, show_default=True)
@click.option("--clip-norm", type=POSITIVE, help="Scale gradients down to this Euclidean norm.")
@click.option("--clip-value", type=POSITIVE, help="Cut elements of gradients to this magnitude.")
@click.option("--accumulate", type=click.IntRange(1), default=1, show_default=True, help="Batches per step.")
@click.option("--ema-decay", type=SHARE, help="Test and save an exponential average of the weights.")
@click.option("--label-smoothing", type=SHARE, default=0.0, show_default=True, help="For class numbers.")
@click.option("--mixup", type=NOT_NEGATIVE, default=0.0, show_default=True, help="Alpha; 0 mixes nothing.")
@click.option("--augment", help="crop:PIXELS, flip, or crop:PIXELS,flip; for images.")
@click.option(
    "--schedule",
    default="cosine",
    show_default=True,
    help="constant, step:EVERY,FACTOR, cosine, or warmup:EPOCHS+one of them; in epochs.",
)
@worker_options
@click.option("--shards", type=click.IntRange(1), help="Parts of a batch; they fix the bits. Default: the workers.")
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), default=0, show_default=True)
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True)
@click.option(
    "--log-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write what is run, what is seen of it meanwhile, and the model: JSON, and for TensorBoard if installed.",
)
@click.option("--watch-every", type=click.IntRange(1), help="With --log-dir: steps. Default: 10.")
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Write the results as JSON.")
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), help="Write the model as safetensors.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
def train(
    source: str,
    model_text: str,
    epochs: int,
    batch_size: int,
    optimizer: str,
    lr: float | None,
    momentum: float,
    weight_decay: float,
    clip_norm: float | None,
    clip_value: float | None,
    accumulate: int,
    ema_decay: float | None,
    label_smoothing: float,
    mixup: float,
    augment: str | None,
    schedule: str,
    workers: int | None,
    backend: str,
    threads_per_worker: int,
    address: str | None,
    spread: bool,
    shards: int | None,
    seed: int,
    dtype: str,
    log_dir: Path | None,
    watch_every: int | None,
    report: Path | None,
    save: Path | None,
    quiet: bool,
) -> None:
    """Train a network and test it on unseen samples."""
    console = Console(quiet=quiet)
    check_writable("--report", report)
    check_writable("--save", save)
    if log_dir is None and watch_every is not None:
        raise click.UsageError("--watch-every goes with --log-dir: nothing is watched without.")
    if log_dir is not None:
        with usage_errors():
            check_is_free(log_dir)
        make_folder("--log-dir", log_dir)
    if save is not None and save == report:
        raise click.UsageError("--save and --report name the same file.")
    with usage_errors():
        rate = parse_schedule(schedule, DEFAULT_LR[optimizer] if lr is None else lr, epochs)
        rule = OPTIMIZERS[optimizer](rate, momentum, weight_decay)
        changes = parse_augment(augment, mixup)
    if workers or shards:
        check_fit(batch_size, batch_size, shards or workers or 1, workers or 1)
    with start(
        workers, backend=backend, threads_per_worker=threads_per_worker, address=address, spread=spread
    ) as coordinator:
        with usage_errors():  # the workers start while the data are read
            data = load(source)
            if label_smoothing and not data.train.has_classes:
                raise ValueError("--label-smoothing is for class numbers, but these targets are real numbers.")
            model = parse_model(model_text, data, dtype).build(data.train.x.shape[1:])
            for part in data:
                default_loss(part).check(part.y, model.output_shape)
            if save:
                check_can_be_saved(model)
        attempts = new_attempts()
        with LogWriter(log_dir, attempts) if log_dir else nullcontext() as logs:
            if logs:
                logs.run(_run_info(coordinator, model, rule, data, shards or coordinator.workers))
            with ProgressDisplay(console, epochs, has_classes=data.train.has_classes) as display:
                result = coordinator.fit(
                    model,
                    data.train,
                    rule,
                    epochs=epochs,
                    batch_size=batch_size,
                    shards=shards,
                    seed=seed,
                    loss=CrossEntropy(label_smoothing) if label_smoothing else None,
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
            test = coordinator.evaluate(model, data.test)
            numbers = _report(coordinator, model, result, shards or coordinator.workers, seed)
            numbers |= {"test_loss": test.loss, "test_accuracy": test.accuracy}
            if logs:
                logs.finish(model, numbers)
            if not np.isfinite(test.loss):
                raise TrainingDiverged(f"The loss on unseen samples is {test.loss}. Lower the learning rate.")
        if report:
            with attempts.writing(report):
                write_json(report, numbers)
        console.print(
            _summary(test.accuracy, test.loss, len(data.test))
            + f" Trained on {len(data.train):,} for {epochs} epochs in "
            f"{result.seconds:.1f} s with {_counted(coordinator.workers, 'worker')} ({coordinator.backend}): "
            f"{result.samples_per_second:,.0f} samples/s, {np.median(result.step_seconds) * 1e3:.2f} ms a step.",
            highlight=False,
            soft_wrap=True,
        )
    attempts.check()


@program.command("summary")
@data_option
@click.option(
    "--model", "model_text", default="mlp:256,128", show_default=True, help=f"{MODEL_FORMS}, or file.py:function."
)
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True)
def show_summary(source: str, model_text: str, dtype: str) -> None:
    """Print the layers of a model for a data set: their output shapes, parameters and bytes."""
    with usage_errors():
        data = load(source)
        click.echo(summary(parse_model(model_text, data, dtype).build(data.train.x.shape[1:])))


@program.command()
@click.argument("model_path", metavar="MODEL", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@data_option
@worker_options
def evaluate(
    model_path: Path,
    source: str,
    workers: int | None,
    backend: str,
    threads_per_worker: int,
    address: str | None,
    spread: bool,
) -> None:
    """Test a saved MODEL on the unseen samples of a data set."""
    model = load_model(model_path)
    with usage_errors():
        data = load(source)
        model.build(data.test.x.shape[1:])
    with start(
        workers, backend=backend, threads_per_worker=threads_per_worker, address=address, spread=spread
    ) as coordinator:
        test = coordinator.evaluate(model, data.test)
    click.echo(_summary(test.accuracy, test.loss, len(data.test)))


@program.command()
@click.argument("model_path", metavar="MODEL", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("samples_path", metavar="SAMPLES", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the model's raw outputs as .npy."
)
@worker_options
def predict(
    model_path: Path,
    samples_path: Path,
    output: Path | None,
    workers: int | None,
    backend: str,
    threads_per_worker: int,
    address: str | None,
    spread: bool,
) -> None:
    """Print what a saved MODEL says of each of the SAMPLES (.npy, or .npz with x): its class, a line each."""
    check_writable("--output", output)
    if output and output.suffix != ".npy":
        raise click.UsageError(f"--output {output}: expected a name that ends in .npy.")
    model = load_model(model_path)
    x = load_samples(samples_path)
    with usage_errors():
        model.build(x.shape[1:])
    with start(
        workers, backend=backend, threads_per_worker=threads_per_worker, address=address, spread=spread
    ) as coordinator:
        outputs = coordinator.forward(model, x)
    if output:
        content = io.BytesIO()
        np.save(content, outputs)
        write_file(output, content.getbuffer())
    else:
        for label in outputs.reshape(len(outputs), -1).argmax(axis=1):
            click.echo(label)


program.add_command(analyze)
program.add_command(bench)
program.add_command(doctor)
program.add_command(learn)
program.add_command(plot)
program.add_command(report)


def _run_info(coordinator: Coordinator, model: Sequential, rule: Optimizer, data: Split, shards: int) -> RunInfo:
    """What the present command runs."""
    context = click.get_current_context()
    options = {param.opts[0].lstrip("-"): context.params[str(param.name)] for param in context.command.params}
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


def _report(coordinator: Coordinator, model: Sequential, result: FitResult, shards: int, seed: int) -> dict[str, Any]:
    return {
        "backend": coordinator.backend,
        "workers": coordinator.workers,
        "nodes": coordinator.nodes,
        "shards": shards,
        "seed": seed,
        "epochs": len(result.epochs),
        "steps": len(result.losses),
        "train_loss": result.epochs[-1].loss,
        "seconds": result.seconds,
        "samples_per_second": result.samples_per_second,
        "step_ms_median": float(np.median(result.step_seconds) * 1e3),
        "params_sha256": model.sha256(),
        "versions": machine.versions(),
        "cpu": machine.cpu_name(),
        "blas": machine.blas_name(),
    }


def _summary(accuracy: float | None, loss: float, num_samples: int) -> str:
    if accuracy is None:
        return f"Test loss {loss:.5g} on {num_samples:,} unseen samples."
    return f"Test accuracy {accuracy:.2%} on {num_samples:,} unseen samples (loss {loss:.4f})."


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

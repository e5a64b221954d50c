"""`dist-relu train`: a network learns, and shows on unseen samples what it can."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any, get_args

import click

from dist_relu.cli.common import (
    WORKER_OPTIONS,
    data_option,
    new_attempts,
    run_console,
    started,
    tuned_worker_options,
    usage_errors,
)
from dist_relu.cli.config import config_options, write_config
from dist_relu.cli.options import (
    batch_option,
    class_weight_option,
    dtype_option,
    epochs_option,
    loss_option,
    lr_option,
    model_option,
    momentum_option,
    optimizer_option,
    schedule_option,
    tuned_shards_option,
)
from dist_relu.cli.parsing import NORMALIZATIONS
from dist_relu.cli.progress import StatusLine, tell
from dist_relu.cli.resuming import beginning_of
from dist_relu.cli.tracking import TRACKERS, trackers_of
from dist_relu.cli.train_checks import (
    check_log_folder,
    check_paths,
    check_together,
    check_validates,
    metrics_to_measure,
)
from dist_relu.cli.training import BASE_BATCH_SIZE, WARM_UP, WARM_UP_SHARE
from dist_relu.cli.training_run import Outputs, Stopping, TrainingRun
from dist_relu.cli.tuning import Wanted
from dist_relu.cli.types import (
    AUTO,
    BUCKET,
    COMPRESSION_FORMS,
    DURATION,
    EVERY,
    FILE,
    FOLDER,
    NOT_NEGATIVE,
    PART,
    POSITIVE,
    SEED,
    SHARE,
    VALIDATION_MONITOR,
    GroupedCommand,
    OrAuto,
    SomeNames,
    choice,
)
from dist_relu.comm.buckets import BUCKET_BYTES
from dist_relu.core.sizes import size_text
from dist_relu.engine.watch.records import Watch
from dist_relu.engine.weighting import Sampler
from dist_relu.reports.log_writer import LogWriter
from dist_relu.run.monitoring import MONITORS
from dist_relu.run.tracing.trace import Trace

_EXAMPLES = """
\b
Examples:
  dist-relu train
  dist-relu train --data mnist --model cnn --epochs 3 --save model.safetensors
  dist-relu train --data samples.npz --model mlp:64 --optimizer adam --log-dir runs/a
  dist-relu train --epochs 50 --checkpoint runs/b --every 60s --resume
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
    help="Scale samples. Over those that are trained on, standard: every number of a sample has mean 0 and variance 1; "
    "minmax: it is from 0 to 1; images: every channel has mean 0 and variance 1. The model keeps what it takes, so "
    "that evaluate, predict and analyze do the same.",
)
@click.option(
    "--validation",
    type=PART,
    metavar="SHARE",
    help="Hold this share of the samples out of training, the same ones for the same seed, and look after every epoch "
    "what the network makes of them. By default these are the data set's own to validate with, if it has any.",
)
@click.option(
    "--metrics",
    metavar="NAMES",
    help="Also measure these in validations, and of the unseen samples in the end: f1,roc_auc,... of classes, "
    "r2,mae,... of real numbers, with commas between them.",
)
@epochs_option
@batch_option
@optimizer_option
@lr_option
@schedule_option
@momentum_option
@click.option("--weight-decay", type=NOT_NEGATIVE, default=0.0, show_default=True, help="How much weights shrink.")
@click.option(
    "--no-decay",
    metavar="NAMES",
    help="With --weight-decay: what doesn't shrink. biases, norms, or patterns of names such as 0.*, with commas "
    "between them.",
)
@click.option("--clip-norm", type=POSITIVE, help="Scale gradients down to this Euclidean norm.")
@click.option("--clip-value", type=POSITIVE, help="Cut elements of gradients to this magnitude.")
@click.option("--accumulate", type=click.IntRange(1), default=1, show_default=True, help="Batches in one step.")
@click.option("--ema-decay", type=SHARE, help="Test and save an exponential average of the weights, with this decay.")
@click.option(
    "--on-nan",
    type=choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="What to do with a step whose loss or gradient is NaN or infinite: end the run, or leave the step out.",
)
@click.option(
    "--stale-gradients",
    is_flag=True,
    help="Let each step go along the gradient of the step before, as where its exchange takes a whole step.",
)
@click.option(
    "--scale-lr",
    type=choice(["linear", "sqrt"]),
    help="Scale the learning rate by what the samples of a step are of --base-batch-size, or by the root of that.",
)
@click.option(
    "--base-batch-size",
    type=click.IntRange(1),
    help=f"With --scale-lr: the batch that the learning rate is meant for. Default: {BASE_BATCH_SIZE}.",
)
@click.option(
    "--warm-up",
    type=NOT_NEGATIVE,
    metavar="EPOCHS",
    help="With --scale-lr: from the learning rate itself to the scaled one over so many epochs. "
    f"Default: {WARM_UP:g}, but at most {WARM_UP_SHARE:.0%} of the run.",
)
@click.option(
    "--compress",
    metavar="HOW",
    help="Train as if gradients took fewer bytes between groups of shards; with bf16 and fp16 they do, between nodes: "
    f"{COMPRESSION_FORMS}. A number may be left out.",
)
@click.option(
    "--groups",
    type=click.IntRange(1),
    help="With --compress: how many groups there are, whatever the workers. Default: as many as shards.",
)
@click.option(
    "--replicas",
    type=click.IntRange(1),
    help="Train so many replicas of the network, of a group of shards each, which are averaged now and then; they fix "
    "the bits, and workers, of which there may be fewer, don't.",
)
@click.option("--local-steps", type=click.IntRange(1), help="With --replicas: steps from one average to the next.")
@click.option(
    "--outer-lr",
    type=POSITIVE,
    help="With --replicas: go so far towards averages, by DiLoCo's outer rule. Default: 0.7.",
)
@click.option("--outer-momentum", type=SHARE, help="The Nesterov momentum of that rule. Default: 0.9.")
@loss_option
@click.option("--label-smoothing", type=SHARE, default=0.0, show_default=True, help="Smooth class numbers by so much.")
@class_weight_option
@click.option(
    "--sampler",
    type=choice(get_args(Sampler)),
    help="Draw samples with replacement: weighted, as often as their weights say, or balanced, all classes alike.",
)
@click.option(
    "--mixup", type=NOT_NEGATIVE, default=0.0, show_default=True, help="Mix samples, with this alpha; 0 mixes none."
)
@click.option("--augment", help="Change images at random: crop:PIXELS, flip, or crop:PIXELS,flip.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Fixes all that is random.")
@dtype_option
@tuned_worker_options
@click.option(
    "--bucket",
    type=OrAuto(BUCKET),
    metavar="SIZE",
    help=f"About how large messages between nodes are: 256KiB, 1MiB, ..., or auto for the fastest; changes no bits. "
    f"Default: {size_text(BUCKET_BYTES)}.",
)
@tuned_shards_option
@click.option(
    "--verify-every",
    type=click.IntRange(1),
    metavar="STEPS",
    help="Let other workers compute a part of every so many steps as well, to find processors that compute wrong.",
)
@click.option(
    "--patience",
    type=click.IntRange(1),
    help="End when validations were no better for so many epochs, and take the weights of the best one. "
    "Goes with --validation, unless the data set has samples to validate with.",
)
@click.option("--min-delta", type=NOT_NEGATIVE, help="With --patience: better is by more than this. Default: 0.")
@click.option(
    "--monitor",
    type=VALIDATION_MONITOR,
    metavar="NAME",
    help="What validations are compared by, for --patience and the best checkpoint: validation_accuracy, or a metric, "
    "as validation_f1. Default: validation_loss.",
)
@click.option("--max-time", type=DURATION, metavar="TIME", help="End after 90s, 5min, 2h of training.")
@click.option(
    "--checkpoint",
    type=FOLDER,
    metavar="FOLDER",
    help="Write to FOLDER where the run stands, from time to time and when it ends, whatever ends it.",
)
@click.option(
    "--every",
    "checkpoint_every",
    type=EVERY,
    metavar="PERIOD",
    help="How often: 500steps, 60s, 5min, 2epochs. Default: 1epoch.",
)
@click.option("--keep", type=click.IntRange(1), help="How many checkpoints to keep. Default: 3.")
@click.option(
    "--resume",
    is_flag=True,
    help="Go on from the newest checkpoint there, to the same bits on any workers; --epochs counts from the start.",
)
@click.option("--json", "--report", "report", metavar="FILE", type=FILE, help="Write the results to FILE as JSON.")
@click.option("--save", metavar="FILE", type=FILE, help="Write the model to FILE, as safetensors.")
@click.option(
    "--log-dir",
    metavar="FOLDER",
    type=FOLDER,
    help="Write to a new FOLDER what is run, what is seen of it meanwhile, and the model; for `dist-relu report`, "
    "`dist-relu plot`, `dist-relu reproduce` and TensorBoard. With --resume it may be that of the run.",
)
@click.option("--watch-every", type=click.IntRange(1), help="Look at one in so many steps. Default: 10.")
@click.option(
    "--trace",
    metavar="FILE",
    type=FILE,
    help="Write to FILE where the time of steps goes, on all workers of all nodes, in Chrome's trace event format: for "
    "https://ui.perfetto.dev and `dist-relu plot phases`. Says it in words, too.",
)
@click.option(
    "--trace-steps", type=click.IntRange(1), metavar="STEPS", help="With --trace: so many, at first. Default: 10000."
)
@click.option(
    "--report-to",
    type=SomeNames(tuple(TRACKERS)),
    metavar="NAMES",
    help="Let mlflow, wandb, or mlflow,wandb keep parameters, metrics and the model, in this folder unless the "
    "environment says otherwise; resumed runs go on in theirs.",
)
@config_options
@click.option("--quiet", is_flag=True, help="Print errors only.")
def train(
    patience: int | None,
    min_delta: float | None,
    monitor: str | None,
    metrics: str | None,
    max_time: float | None,
    checkpoint: Path | None,
    checkpoint_every: str | None,
    keep: int | None,
    resume: bool,
    report: Path | None,
    save: Path | None,
    log_dir: Path | None,
    watch_every: int | None,
    trace: Path | None,
    trace_steps: int | None,
    report_to: str | None,
    verify_every: int | None,
    write_config_to: Path | None,
    quiet: bool,
    **others: Any,
) -> None:
    """Train a network and test it on unseen samples.

    Ctrl-C, SIGTERM and SIGHUP end it early: what was asked for is written then, with the weights after the last
    complete step, and a last checkpoint. A second Ctrl-C ends it at once.
    """
    context, attempts = click.get_current_context(), new_attempts()
    console = run_console(attempts, quiet=quiet)
    outputs = Outputs(report=report, save=save, log_dir=log_dir, checkpoint=checkpoint, trace=trace)
    check_together(context)
    check_paths(outputs)
    begin = beginning_of(context, checkpoint, resume=resume)
    check_log_folder(log_dir, begin)
    trackers = trackers_of(report_to, quiet=quiet)
    with usage_errors():
        begin.options.check(None if others["workers"] == AUTO else others["workers"])
    if write_config_to:
        write_config(write_config_to, context)
    if resume:
        tell(console, begin.in_words)
    wanted = Wanted.of(context, begin.options)
    workers = {name: others[name] for name in WORKER_OPTIONS}
    if wanted.workers:
        workers["workers"] = None  # as many as there can be, to begin with
    with StatusLine(console) as status, started(**workers) as coordinator:
        status.phase(f"Reading {begin.options.source}")
        task = begin.options.read(saves=save is not None)  # the workers start meanwhile
        status.phase("Starting workers")
        check_validates(context, task)
        measured = metrics_to_measure(task, metrics, monitor)
        task, tuning = wanted.tuned(task, coordinator, status, console)
        task = task.for_workers(coordinator.workers)
        logs_of_run = LogWriter(log_dir, attempts, goes_on_from=begin.state) if log_dir else nullcontext()
        with logs_of_run as logs:
            watch = Watch(watch_every or 10, logs.step, logs.epoch) if logs else None
            traced = Trace(steps=trace_steps or Trace.steps) if trace else None
            with begin.trainer(task, coordinator, watch, verify_every, traced) as trainer:
                trainer.bucket_bytes = tuning.bucket_bytes if tuning else wanted.bucket_bytes
                run = TrainingRun(
                    console=console,
                    status=status,
                    attempts=attempts,
                    coordinator=coordinator,
                    task=task,
                    trainer=trainer,
                    outputs=outputs,
                    logs=logs,
                    trackers=trackers,
                    metrics=measured,
                    trace=traced,
                    tuning=tuning,
                )
                stopping = Stopping(monitor or MONITORS[0], patience, min_delta, max_time)
                run.go(run.announce(context), stopping, every=checkpoint_every or "1epoch", keep=keep or 3)
    attempts.check()

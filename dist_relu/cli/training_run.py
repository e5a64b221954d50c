"""A run of `dist-relu train`, from its first word to its last: it goes on, ends or is ended, and writes what it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, final

import click
import numpy as np
from rich.console import Console

from dist_relu.checkpoint import save_model
from dist_relu.cli.common import wrote
from dist_relu.cli.config import options_of
from dist_relu.cli.losses import loss_in_words
from dist_relu.cli.progress import ProgressDisplay, StatusLine, counted, tell, tested
from dist_relu.cli.running import Interrupted
from dist_relu.cli.training import Task
from dist_relu.coordinator import Coordinator
from dist_relu.core import machine
from dist_relu.core.files import Attempts, write_json
from dist_relu.data import Dataset
from dist_relu.data.labels import listed
from dist_relu.engine.arguments import loss_for, predicts
from dist_relu.engine.results import Evaluation, FitResult, metrics_in_words
from dist_relu.errors import TrainingDiverged
from dist_relu.integrations.tracking import TrackingLog
from dist_relu.nn import Sequential, summary
from dist_relu.reports.log_writer import LogWriter
from dist_relu.reports.logs import MODEL_FILE
from dist_relu.run.autotune import Tuning
from dist_relu.run.callbacks import EarlyStopping
from dist_relu.run.checkpoints import Checkpoint, checkpoint_files
from dist_relu.run.info import RUN_FILE, RunInfo, write_run_info
from dist_relu.run.monitoring import metric_of
from dist_relu.run.tracing.trace import Trace
from dist_relu.run.trainer import Trainer


@final
@dataclass(frozen=True, kw_only=True)
class Outputs:
    """These files and folders were asked for."""

    report: Path | None
    save: Path | None
    log_dir: Path | None
    checkpoint: Path | None
    trace: Path | None

    def __bool__(self) -> bool:
        return bool(self.report or self.save or self.log_dir or self.checkpoint or self.trace)


@final
@dataclass(frozen=True)
class Stopping:
    """This is when a run ends before its last epoch.  monitor: what its validations are compared by."""

    monitor: str
    patience: int | None
    min_delta: float | None
    max_seconds: float | None

    def rule(self) -> EarlyStopping | None:
        if self.patience is None:
            return None
        return EarlyStopping(self.monitor, patience=self.patience, min_delta=self.min_delta or 0.0, restore_best=True)


@final
class NothingLeft:
    """Ends a call before its first step; other callbacks hear of it as of any other call."""

    def on_fit_begin(self, trainer: Trainer, *, validates: bool) -> None:
        raise StopIteration


@final
@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """This run has all that it needs, and has not begun.

    metrics: that are measured besides loss and accuracy.  tuning: what was found by trying, if anything was.
    """

    console: Console
    status: StatusLine
    attempts: Attempts
    coordinator: Coordinator
    task: Task
    trainer: Trainer
    outputs: Outputs
    logs: LogWriter | None
    trackers: Sequence[TrackingLog]
    metrics: Sequence[str]
    trace: Trace | None
    tuning: Tuning | None

    def announce(self, context: click.Context) -> RunInfo | None:
        """Say what is run, here and in the folders that are written."""
        task, options = self.task, self.task.options
        tell(
            self.console,
            f"{_kind(task)} {options.optimizer}, {options.rate_in_words()}, {options.schedule}. "
            f"{_sizes(task.data.train, task.model)} {self._workers()}.",
        )
        if not (self.logs or self.outputs.checkpoint):
            return None
        self.status.phase("Preparing")
        info = self._info(context)
        if self.logs:
            self.logs.run(info)
        self._write_info(info)
        return info

    def go(self, info: RunInfo | None, stopping: Stopping, *, every: str, keep: int) -> None:
        """Train, test, and write what was asked for.  every, keep: see `Checkpoint`."""
        options, trainer = self.task.options, self.trainer
        first = trainer.step
        per_epoch = trainer.steps_per_epoch
        display = ProgressDisplay(
            self.console,
            self.status,
            options.epochs * per_epoch,
            per_epoch,
            has_accuracy=self.trainer.model.predicts != "numbers",
        )
        rule = stopping.rule()
        self.status.phase("Preparing")
        try:
            result = self._fit(display, rule, stopping, every, keep)
            model = trainer.average or self.task.model
            if self.outputs.save:
                with self.attempts.writing(self.outputs.save):
                    save_model(model, self.outputs.save)
            self.status.phase("Testing")
            test = self.coordinator.evaluate(model, self.task.data.test, metrics=self.metrics)
        except KeyboardInterrupt as stop:
            if not self.outputs or trainer.step == first:
                raise
            self._leave(getattr(stop, "average", None) or self.task.model, stop)
        numbers = self._about(model) | self._numbers(interrupted=False) | _speed(result)
        numbers |= {"test_loss": test.loss, "test_accuracy": test.accuracy}
        if test.metrics:
            numbers["test_metrics"] = dict(test.metrics)
        if self.logs:
            self.logs.finish(model, numbers)
        if info:
            self._write_info(replace(info, results=numbers))
        if not np.isfinite(test.loss):
            raise TrainingDiverged(f"The loss on unseen samples is {test.loss}. Lower the learning rate.")
        self._write_report(numbers)
        self._tell_end(test, result, first, rule)
        self._write_trace()

    def _fit(
        self, display: ProgressDisplay, rule: EarlyStopping | None, stopping: Stopping, every: str, keep: int
    ) -> FitResult:
        """Train as far as the run is to go."""
        trainer = self.trainer
        left = self.task.options.epochs * trainer.steps_per_epoch - trainer.step
        plateau = self.task.plateau()
        callbacks: list[Any] = [callback for callback in (plateau, rule) if callback]
        if self.task.data.validation:
            callbacks.append(display)
        callbacks += self.trackers  # before those that come and go, as callbacks are remembered by their place
        if self.logs:
            callbacks.append(self.logs)
        if self.outputs.checkpoint:
            callbacks.append(Checkpoint(self.outputs.checkpoint, every, keep, stopping.monitor))
        if left <= 0:
            callbacks.append(NothingLeft())
        return trainer.fit(
            steps=max(left, 1),
            validation=self.task.data.validation,
            metrics=self.metrics if self.task.data.validation else (),
            callbacks=callbacks,
            max_seconds=stopping.max_seconds,
            on_progress=display.show,
        )

    def _leave(self, model: Sequential, stop: KeyboardInterrupt) -> NoReturn:
        """A signal has ended the run: write what there is, and say so."""
        outputs, trainer = self.outputs, self.trainer
        for path in (outputs.save, outputs.log_dir / MODEL_FILE if outputs.log_dir else None):
            if path:
                with self.attempts.writing(path):
                    save_model(model, path)
        nothing = {"test_loss": None, "test_accuracy": None}
        self._write_report(self._about(model) | self._numbers(interrupted=True) | nothing)
        self._write_trace()
        epochs = self.task.options.epochs
        told = f"interrupted in epoch {min(trainer.epoch + 1, epochs)} of {epochs}"
        told += wrote(self.attempts, outputs.save, outputs.report, outputs.log_dir, outputs.checkpoint, outputs.trace)
        if outputs.checkpoint and (written := checkpoint_files(outputs.checkpoint)):
            told += f". --resume goes on from step {written[-1][0]:,}"
        raise Interrupted(told) from stop

    def _tell_end(self, test: Evaluation, result: FitResult, first: int, rule: EarlyStopping | None) -> None:
        options, trainer = self.task.options, self.trainer
        outcome = tested(test.accuracy, test.loss, len(self.task.data.test))
        if rule and rule.stopped_step is not None and rule.best_step is not None:
            tell(
                self.console,
                f"Stopped after {self._length(rule.stopped_step)}, as the {metric_of(rule.monitor)} in validation was "
                "no better for "
                f"{counted(rule.patience, 'epoch')}; the weights are those after {self._length(rule.best_step)}.",
            )
        elif trainer.step < options.epochs * trainer.steps_per_epoch:
            tell(self.console, f"Stopped after {self._length(trainer.step)}, as --max-time is over.")
        if not len(result.losses):
            tell(self.console, f"{outcome} Nothing was left to train: it has been for {self._length(trainer.step)}.")
            return
        if test.metrics:
            outcome += f" Measured: {', '.join(metrics_in_words(test.metrics))}."
        since = f", from step {first:,} on" if first else ""
        tell(
            self.console,
            f"{outcome} Trained on {len(self.task.data.train):,} for {self._length(trainer.step)}{since} in "
            f"{result.seconds:.1f} s with {self._workers()}: {result.samples_per_second:,.0f} samples/s, "
            f"{np.median(result.step_seconds) * 1e3:.2f} ms a step.",
        )

    def _length(self, step: int) -> str:
        """So many steps, in epochs."""
        epochs, steps = divmod(step, self.trainer.steps_per_epoch)
        words = [counted(epochs, "epoch")] * bool(epochs) + [counted(steps, "step")] * bool(steps or not epochs)
        return " and ".join(words)

    def _workers(self) -> str:
        return f"{counted(self.coordinator.workers, 'worker')} ({self.coordinator.backend})"

    def _info(self, context: click.Context) -> RunInfo:
        """What the present command runs."""
        task, coordinator, settings = self.task, self.coordinator, self.trainer.settings
        exact = {"lr": task.options.lr, "seed": settings["seed"], "shards": settings["shards"]}
        return RunInfo(
            options_of(context) | exact,
            repr(task.model),
            summary(task.model),
            repr(task.rule),
            len(task.data.train),
            len(task.data.test),
            coordinator.backend,
            coordinator.workers,
            coordinator.nodes,
            settings["shards"],
            datetime.now(UTC).isoformat(timespec="seconds"),
            machine.cpu_name(),
            machine.blas_name(),
            machine.versions(),
            settings=dict(settings),
            tuning=asdict(self.tuning) if self.tuning else {},
        )

    def _write_info(self, info: RunInfo) -> None:
        if self.outputs.checkpoint:
            with self.attempts.writing(self.outputs.checkpoint / RUN_FILE):
                write_run_info(info, self.outputs.checkpoint)

    def _write_trace(self) -> None:
        """Write where the time went, and say it, if anything was traced."""
        if self.trace and self.outputs.trace and self.trace.num_traced:
            with self.attempts.writing(self.outputs.trace):
                self.trace.save(self.outputs.trace)
            tell(self.console, str(self.trace.phases()))

    def _write_report(self, numbers: dict[str, Any]) -> None:
        if self.outputs.report:
            with self.attempts.writing(self.outputs.report):
                write_json(self.outputs.report, numbers)

    def _about(self, model: Sequential) -> dict[str, Any]:
        """What a report says of what was run, and of the model."""
        return {
            "backend": self.coordinator.backend,
            "workers": self.coordinator.workers,
            "nodes": self.coordinator.nodes,
            "shards": self.task.options.shards,
            "seed": self.task.options.seed,
            "params_sha256": model.sha256(),
            **({"classes": list(model.classes)} if model.classes else {}),
            "versions": machine.versions(),
            "cpu": machine.cpu_name(),
            "blas": machine.blas_name(),
        }

    def _numbers(self, *, interrupted: bool) -> dict[str, Any]:
        """How far the run is; its loss is that of the last epoch, or of the steps so far where none is over."""
        trainer, per_epoch = self.trainer, self.trainer.steps_per_epoch
        stop = trainer.epoch * per_epoch or trainer.step
        records = trainer.records[max(stop - per_epoch, 0) : stop]
        loss = float(np.average(records["loss"], weights=records["num_samples"])) if len(records) else None
        return {
            "interrupted": interrupted,
            "epochs": trainer.epoch,
            "steps": trainer.step,
            "train_loss": loss if loss is None or np.isfinite(loss) else None,
            "recoveries": [asdict(recovery) for recovery in self.coordinator.recoveries],
        }


def _speed(result: FitResult) -> dict[str, Any]:
    """How long the steps of a call took."""
    steps = result.step_seconds
    return {
        "seconds": float(steps.sum()),
        "samples_per_second": result.samples_per_second,
        "step_ms_median": float(np.median(steps) * 1e3) if len(steps) else None,
    }


def _kind(task: Task) -> str:
    """What is learned, with which loss, and how samples are weighted."""
    data, train = task.data, task.data.train
    loss = loss_for(train, task.loss)
    what = {
        "classes": counted(data.num_outputs(), "class") + (f" ({listed(train.classes)})" if train.classes else ""),
        "labels": counted(data.num_outputs(), "label"),
        "numbers": f"Regression ({counted(data.num_outputs(), 'output')})",
    }[predicts(train, loss)]
    drawn = {None: "", "weighted": ", drawn by weight", "balanced": ", classes drawn equally often"}
    is_weighted = task.options.sampler is None and (train.weights is not None or task.class_weight is not None)
    return f"{what}, {loss_in_words(loss)}{', weighted' * is_weighted}{drawn[task.options.sampler]};"


def _sizes(data: Dataset, model: Sequential) -> str:
    x, scale = data.rows.storage, data.rows.scale or 1
    span = ""
    if isinstance(x, np.ndarray):  # to look at all of a file takes as long as to train on it
        least, most, mean = x.min() * scale, x.max() * scale, x.mean(dtype=float) * scale
        span = f" from {least:.4g} to {most:.4g} (mean {mean:.4g})"
    shape = "x".join(map(str, data.sample_shape))
    return f"{len(data):,} samples of {shape} numbers{span}, {model.num_params:,} parameters,"

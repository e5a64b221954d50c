"""The log folder of a run, written while the run goes on: as `dist_relu.reports.logs` says, and for TensorBoard."""

from __future__ import annotations

import json
import os
import socket
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

from dist_relu.checkpoint import save_model
from dist_relu.core.files import Attempts, GrowingFile, make_folder, strict, write_file
from dist_relu.engine.results import Validated
from dist_relu.engine.watch.records import PREACTIVATION_EDGES, EpochSummary, WatchedStep
from dist_relu.errors import BackendError, WriteError
from dist_relu.nn import Sequential
from dist_relu.reports.logs import EPOCHS_FILE, MODEL_FILE, STEPS_FILE, VALIDATIONS_FILE
from dist_relu.run.info import RUN_FILE, STATE_FILE, RunInfo, read_run_info, write_run_info
from dist_relu.run.state import RunState
from dist_relu.run.state_file import save_state
from dist_relu.run.trainer import Trainer


@final
class LogWriter:
    """Writes the log folder of a run while it goes on.  Use as a context manager.

    folder: is made if need be.  Raises `WriteError` for one that takes no files, and ValueError for one that holds such
    files already, unless the run goes on. What can't be written later is left out: `attempts` tells of it, and the run
    goes on.
    goes_on_from: the run stood there before; of what the folder holds, what comes behind that is dropped.
    """

    def __init__(self, folder: Path, attempts: Attempts | None = None, *, goes_on_from: RunState | None = None) -> None:
        make_folder(folder)
        if goes_on_from is None:
            check_is_free(folder)
        else:
            _keep_lines(folder / STEPS_FILE, "step", goes_on_from.step)
            _keep_lines(folder / EPOCHS_FILE, "epoch", goes_on_from.epoch)
            _keep_lines(folder / VALIDATIONS_FILE, "step", goes_on_from.step + 1)
        self._folder = folder
        self._attempts = attempts or Attempts(warnings.warn)
        self._info: RunInfo | None = None
        self._steps, self._epochs = (
            GrowingFile(folder / name, keeps=goes_on_from is not None) for name in (STEPS_FILE, EPOCHS_FILE)
        )
        self._validations: GrowingFile | None = None
        self._events: _Events | None = None
        with self._attempts.writing(folder):
            self._events = _events(folder, self._attempts.tell)

    def run(self, info: RunInfo) -> None:
        """Write what is run."""
        self._info = info
        with self._attempts.writing(self._folder / RUN_FILE):
            write_run_info(info, self._folder)

    def step(self, step: WatchedStep) -> None:
        """Add a step; for `Watch.on_step`."""
        with self._attempts.writing(self._folder / STEPS_FILE):
            self._steps.write(
                _line({**vars(step), "layers": [*map(vars, step.layers)], "params": [*map(vars, step.params)]})
            )
        self._show(step.step, scalars(step), _distributions(step))

    def epoch(self, epoch: EpochSummary) -> None:
        """Add an epoch; for `Watch.on_epoch`."""
        with self._attempts.writing(self._folder / EPOCHS_FILE):
            self._epochs.write(_line(vars(epoch)))
        self._show(epoch.epoch + 1, scalars_of_epoch(epoch))

    def on_validation(self, trainer: Trainer, validated: Validated) -> None:
        """Add a validation: a `LogWriter` is a callback of `Trainer.fit`."""
        with self._attempts.writing(self._folder / VALIDATIONS_FILE):
            self._validations = self._validations or GrowingFile(self._folder / VALIDATIONS_FILE, keeps=True)
            self._validations.write(_line(vars(validated)))
        self._show(validated.step, scalars_of_validation(validated))

    def on_fit_end(self, trainer: Trainer) -> None:
        """Write where the run stands, for `dist-relu reproduce`: as a callback, too."""
        with self._attempts.writing(self._folder / STATE_FILE), suppress(BackendError):
            save_state(trainer.state(), self._folder / STATE_FILE)  # which may be lost with the workers that held it

    def finish(self, model: Sequential, results: Mapping[str, Any]) -> None:
        """Write the trained model and the results; after `run`."""
        assert self._info is not None
        with self._attempts.writing(self._folder / MODEL_FILE):
            try:
                save_model(model, self._folder / MODEL_FILE)
            except ValueError as error:  # a layer of the user's own
                raise WriteError(f"{self._folder / MODEL_FILE} can't be written: {error}") from None
        self.run(replace(self._info, results=dict(results)))
        tested = {f"{name}/test": results.get(f"test_{name}") for name in ("loss", "accuracy")}
        self._show(int(results.get("steps", 0)), [(name, value) for name, value in tested.items() if value is not None])

    def _show(
        self,
        place: int,
        numbers: Iterable[tuple[str, float]],
        distributions: Iterable[tuple[str, list[int]]] = (),
    ) -> None:
        """Add to what TensorBoard shows.  place: along the x axis."""
        if self._events is None:
            return
        try:
            with self._attempts.writing(self._events.path):
                self._events.add(place, numbers, distributions)
        except Exception as error:  # anything, when its own dependencies don't suit it
            self._attempts.tell(_no_tensorboard(error))
            self._close_events()

    def _close_events(self) -> None:
        if self._events:
            with self._attempts.writing(self._events.path):
                self._events.close()
        self._events = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        files = {STEPS_FILE: self._steps, EPOCHS_FILE: self._epochs, VALIDATIONS_FILE: self._validations}
        for name, file in files.items():
            with self._attempts.writing(self._folder / name):
                if file:
                    file.close()
        self._close_events()
        if error is not None and self._info:
            message = str(error) or type(error).__name__
            self.run(replace(self._info, error="Interrupted." if kind is KeyboardInterrupt else message))


_FILES = RUN_FILE, STEPS_FILE, EPOCHS_FILE, VALIDATIONS_FILE, MODEL_FILE, STATE_FILE


def _keep_lines(path: Path, key: str, before: int) -> None:
    """Drop the lines of a file whose number `key` is not below `before`, and what is no such line."""
    if path.is_file():
        lines = path.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if line.endswith(b"\n") and _number(line, key) < before]
        write_file(path, b"".join(kept))


def _number(line: bytes, key: str) -> float:
    """A number in a line of JSON; infinity where there is none."""
    try:
        return float(json.loads(line)[key])
    except (ValueError, TypeError, LookupError, RecursionError):
        return inf


def check_is_free(folder: Path) -> None:
    """Raise ValueError for a folder in which a run would overwrite something, which empty files are not."""
    there = [name for name in _FILES if (folder / name).exists() and (folder / name).stat().st_size]
    if there:
        raise ValueError(f"{folder} holds {', '.join(there)} already. Choose another folder for this run.")


def remove_logs_without_checkpoint(folder: Path, checkpoints: Path) -> None:
    """Remove the logs of a run that ended before its first checkpoint, so that it can begin anew.  Others stay.

    checkpoints: the folder that is to hold those of the run, with its run.json.
    """
    try:
        logged, known = read_run_info(folder), read_run_info(checkpoints)
    except (OSError, ValueError, RecursionError):
        return
    if logged.settings == known.settings and not logged.results and not (folder / MODEL_FILE).exists():
        for name in _FILES:
            (folder / name).unlink(missing_ok=True)


def check_is_of_run(folder: Path, state: RunState) -> None:
    """Raise ValueError for a folder whose logs are those of another run than the one that stood at `state`."""
    try:
        settings = read_run_info(folder).settings
    except (OSError, ValueError, RecursionError):
        settings = {}
    if settings != state.settings:
        raise ValueError(f"{folder} holds the logs of another run. Choose another folder for those of this one.")


def scalars(step: WatchedStep) -> Iterator[tuple[str, float]]:
    """The numbers of a step, by the names under which TensorBoard shows them."""
    for name, value in (
        ("loss/train", step.loss),
        ("accuracy/train", step.accuracy),
        ("lr", step.lr),
        ("samples_per_second", step.samples_per_second),
    ):
        if value is not None:
            yield name, value
    for layer in step.layers:
        for name in ("sparsity", "silent", "mean", "variance"):
            yield f"{name}/{layer.name}", getattr(layer, name)
    for param in step.params:
        yield f"gradient_norm/{param.name}", param.gradient_norm
        if param.update_ratio is not None:
            yield f"update_ratio/{param.name}", param.update_ratio


def scalars_of_epoch(epoch: EpochSummary) -> Iterator[tuple[str, float]]:
    """What TensorBoard draws of an epoch: means over it, and the numbers of dead units."""
    yield "epoch/loss", epoch.loss
    if epoch.accuracy is not None:
        yield "epoch/accuracy", epoch.accuracy
    for layer, units in (epoch.dead or {}).items():
        yield f"dead/{layer}", len(units)


def scalars_of_validation(validated: Validated) -> Iterator[tuple[str, float]]:
    """What TensorBoard draws of a validation."""
    yield "validation/loss", validated.loss
    if validated.accuracy is not None:
        yield "validation/accuracy", validated.accuracy
    for name, value in validated.metrics.items():
        yield f"validation/{name}", value


def _distributions(step: WatchedStep) -> Iterator[tuple[str, list[int]]]:
    """Those of a step, as counts in the bins between `PREACTIVATION_EDGES`, by their names."""
    for layer in step.layers:
        if layer.preactivations is not None:
            yield f"preactivations/{layer.name}", layer.preactivations


def _line(content: Mapping[str, Any]) -> bytes:
    """A line of JSON."""
    try:
        line = json.dumps(content, allow_nan=False)
    except ValueError:
        line = json.dumps(strict(content), allow_nan=False)
    return (line + "\n").encode()


def _events(folder: Path, tell: Callable[[str], object]) -> _Events | None:
    """None without TensorBoard, or with one that does not work: that is told."""
    if not find_spec("tensorboard"):
        return None
    try:
        return _Events(folder)
    except WriteError:
        raise
    except Exception as error:  # anything, when its own dependencies don't suit it
        tell(_no_tensorboard(error))
        return None


def _no_tensorboard(error: Exception) -> str:
    what = f"{type(error).__name__}: {error}".splitlines()[0]
    return f"Nothing is written for TensorBoard, which does not work here: {what}"


@final
class _Events:
    """An event file, made of TensorBoard's own records."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.path = folder / f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        self._file = GrowingFile(self.path)
        self._writer = RecordWriter(self._file)
        self._writer.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())

    def add(
        self, step: int, numbers: Iterable[tuple[str, float]], distributions: Iterable[tuple[str, list[int]]]
    ) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers]
        values += [Summary.Value(tag=name, histo=_histogram(counts)) for name, counts in distributions]
        event = Event(step=step, wall_time=time.time(), summary=Summary(value=values))
        self._writer.write(event.SerializeToString())

    def close(self) -> None:
        self._file.close()


def _histogram(counts: list[int]) -> Any:
    """Counts as TensorBoard takes them: the bins from the first that is not empty to the last one, with finite limits.

    Sums are not known, and TensorBoard does not show them.
    """
    from tensorboard.compat.proto.summary_pb2 import HistogramProto

    edges = [2 * PREACTIVATION_EDGES[1], *PREACTIVATION_EDGES[1:-1], 2 * PREACTIVATION_EDGES[-2]]
    filled = [i for i, count in enumerate(counts) if count] or [len(counts) // 2]
    first, last = filled[0], filled[-1]
    limits = edges[first : last + 2]  # TensorBoard's first bucket ends where the first bin begins
    buckets = [0, *counts[first : last + 1]]
    return HistogramProto(min=limits[0], max=limits[-1], num=sum(counts), bucket_limit=limits, bucket=buckets)

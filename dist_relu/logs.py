"""The log folder of a run: what was run, what was seen of it, and what came out.

    run.json            what was run, and when it is over its results
    steps.jsonl         a `WatchedStep` a line, written while the run goes on
    epochs.jsonl        an `EpochSummary` a line, written when the epoch is over
    model.safetensors   the trained model
    events.out.*        the same steps for TensorBoard, where that is installed

All JSON is strict: NaN and infinities are null. Where a number must stand they come back as NaN, elsewhere as None.
"""

from __future__ import annotations

import json
import os
import socket
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from importlib.util import find_spec
from math import nan
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, final

from dist_relu.checkpoint import save_model
from dist_relu.errors import WriteError
from dist_relu.files import Attempts, GrowingFile, make_folder, strict, write_json
from dist_relu.nn import Sequential
from dist_relu.watching import PREACTIVATION_EDGES, EpochSummary, WatchedLayer, WatchedParam, WatchedStep

T = TypeVar("T")

_RUN, _STEPS, _EPOCHS = "run.json", "steps.jsonl", "epochs.jsonl"
MODEL_FILE = "model.safetensors"


@dataclass(frozen=True)
class RunInfo:
    """What was run.

    options: of the command, by their names; what was not given has its default.  layers: the model as Python writes it.
    summary: the table of `nn.summary`.  started: when, in ISO 8601.  cpu, blas, versions: as in `--report`.
    results: empty until the run is over; then those of `--report`, with test_loss and test_accuracy.
    error: why it ended before its time, where it could still say so.
    """

    options: dict[str, Any]
    layers: str
    summary: str
    optimizer: str
    train_samples: int
    test_samples: int
    backend: str
    workers: int
    nodes: int
    shards: int
    started: str
    cpu: str
    blas: str
    versions: dict[str, str]
    results: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


def in_words(options: Mapping[str, Any]) -> list[str]:
    """What was run, in as few words as a title has room for.

    options: as in `RunInfo`, or in a file of `dist-relu analyze`; what is not there is not told.
    """
    model, data, rate, samples = (options.get(name) for name in ("model", "data", "lr", "samples"))
    batch = options.get("batch-size", options.get("batch_size"))
    parts = (
        f"{model} on {data}" if model and data else f"{model or data or ''}",
        f"{options.get('optimizer') or ''}",
        f"lr {rate:g}" if isinstance(rate, int | float) else "",
        f"batches of {batch}" if batch else "",
        f"{samples:,} samples" if isinstance(samples, int) else "",
        f"seed {options['seed']}" if "seed" in options else "",
    )
    return [part for part in parts if part]


@dataclass(frozen=True)
class Logs:
    """A log folder, read.  run: None if the folder has no run.json."""

    run: RunInfo | None
    steps: list[WatchedStep]
    epochs: list[EpochSummary]


@final
class LogWriter:
    """Writes the log folder of a run while it goes on.  Use as a context manager.

    folder: is made if need be.  Raises `WriteError` for one that takes no files, and ValueError for one that holds such
    files already. What can't be written later is left out: `attempts` tells of it, and the run goes on.
    """

    def __init__(self, folder: Path, attempts: Attempts | None = None) -> None:
        check_is_free(folder)
        make_folder(folder)
        self._folder = folder
        self._attempts = attempts or Attempts(warnings.warn)
        self._info: RunInfo | None = None
        self._steps, self._epochs = GrowingFile(folder / _STEPS), GrowingFile(folder / _EPOCHS)
        self._events: _Events | None = None
        with self._attempts.writing(folder):
            self._events = _events(folder, self._attempts.tell)

    def run(self, info: RunInfo) -> None:
        """Write what is run."""
        self._info = info
        with self._attempts.writing(self._folder / _RUN):
            write_json(self._folder / _RUN, vars(info))

    def step(self, step: WatchedStep) -> None:
        """Add a step; for `Watch.on_step`."""
        with self._attempts.writing(self._folder / _STEPS):
            self._steps.write(
                _line({**vars(step), "layers": [*map(vars, step.layers)], "params": [*map(vars, step.params)]})
            )
        if self._events:
            with self._attempts.writing(self._events.path):
                self._events.add(step)

    def epoch(self, epoch: EpochSummary) -> None:
        """Add an epoch; for `Watch.on_epoch`."""
        with self._attempts.writing(self._folder / _EPOCHS):
            self._epochs.write(_line(vars(epoch)))

    def finish(self, model: Sequential, results: Mapping[str, Any]) -> None:
        """Write the trained model and the results; after `run`."""
        assert self._info is not None
        with self._attempts.writing(self._folder / MODEL_FILE):
            try:
                save_model(model, self._folder / MODEL_FILE)
            except ValueError as error:  # a layer of the user's own
                raise WriteError(f"{self._folder / MODEL_FILE} can't be written: {error}") from None
        self.run(replace(self._info, results=dict(results)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name, file in ((_STEPS, self._steps), (_EPOCHS, self._epochs)):
            with self._attempts.writing(self._folder / name):
                file.close()
        if self._events:
            with self._attempts.writing(self._events.path):
                self._events.close()
        if error is not None and self._info:
            message = str(error) or type(error).__name__
            self.run(replace(self._info, error="Interrupted." if kind is KeyboardInterrupt else message))


def check_is_free(folder: Path) -> None:
    """Raise ValueError for a folder in which a run would overwrite something."""
    there = [name for name in (_RUN, _STEPS, _EPOCHS, MODEL_FILE) if (folder / name).exists()]
    if there:
        raise ValueError(f"{folder} holds {', '.join(there)} already. Choose another folder for this run.")


def read_logs(folder: str | Path) -> Logs:
    """What is in a log folder, of a run that is over or still goes on.

    Raises OSError, and ValueError for a folder that `LogWriter` did not write.
    """
    folder = Path(folder)
    if not (folder / _STEPS).is_file():
        raise ValueError(f"{folder} has no {_STEPS}; expected a folder that dist-relu train --log-dir wrote.")
    run = [*_read(folder / _RUN, _run)] if (folder / _RUN).exists() else [None]
    return Logs(run[0], [*_read(folder / _STEPS, _step)], [*_read(folder / _EPOCHS, _epoch)])


def scalars(step: WatchedStep) -> Iterator[tuple[str, float]]:
    """The numbers of a step, by the names under which TensorBoard shows them."""
    for name in ("loss", "accuracy", "lr", "samples_per_second"):
        value = getattr(step, name)
        if value is not None:
            yield f"run/{name}", value
    for layer in step.layers:
        for name in ("sparsity", "silent", "mean", "variance"):
            yield f"{name}/{layer.name}", getattr(layer, name)
    for param in step.params:
        yield f"gradient_norm/{param.name}", param.gradient_norm
        if param.update_ratio is not None:
            yield f"update_ratio/{param.name}", param.update_ratio


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
        tell(f"Nothing is written for TensorBoard, which does not work here: {error}")
        return None


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

    def add(self, step: WatchedStep) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars(step)]
        for layer in step.layers:
            if layer.preactivations is not None:
                histogram = _histogram(layer.preactivations)
                values.append(Summary.Value(tag=f"preactivations/{layer.name}", histo=histogram))
        event = Event(step=step.step, wall_time=time.time(), summary=Summary(value=values))
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


def _read(path: Path, parse: Callable[[Any], T]) -> Iterator[T]:
    """What the lines of a file stand for, or the whole of a .json file.

    A last line without an end is still being written, or never will be.
    """
    text = path.read_text(errors="replace")
    parts = [text] if path.suffix == ".json" else text.splitlines(keepends=True)
    if path.suffix != ".json" and parts and not parts[-1].endswith("\n"):
        parts.pop()
    try:
        for part in parts:
            yield parse(json.loads(part))
    except (json.JSONDecodeError, TypeError, KeyError, AttributeError):
        raise ValueError(f"{path} is no log of a run; expected what dist-relu train --log-dir writes.") from None


def _run(content: Any) -> RunInfo:
    return RunInfo(**content)


def _step(content: Any) -> WatchedStep:
    layers = [_made(WatchedLayer, layer) for layer in content.pop("layers")]
    params = [_made(WatchedParam, param) for param in content.pop("params")]
    return _made(WatchedStep, content | {"layers": layers, "params": params})


def _epoch(content: Any) -> EpochSummary:
    return _made(EpochSummary, content)


def _made(kind: type[T], content: Any) -> T:
    """A dataclass; a number that must be one and is null is NaN."""
    for each in fields(kind):  # type: ignore[arg-type]
        if each.type == "float" and content[each.name] is None:
            content[each.name] = nan
    return kind(**content)

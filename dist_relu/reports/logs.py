"""The log folder of a run: what was run, what was seen of it, and what came out.

    run.json            what was run, and when it is over its results
    steps.jsonl         a `WatchedStep` a line, written while the run goes on
    epochs.jsonl        an `EpochSummary` a line, written when the epoch is over
    model.safetensors   the trained model
    events.out.*        the same for TensorBoard, where that is installed

All JSON is strict: NaN and infinities are null. Where a number must stand they come back as NaN, elsewhere as None.
"""

from __future__ import annotations

import json
import os
import socket
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, final

from dist_relu.checkpoint import save_model
from dist_relu.core.files import Attempts, GrowingFile, make_folder, strict, write_json
from dist_relu.core.untrusted import made, parse_json, printable, read_file
from dist_relu.engine.watch.records import PREACTIVATION_EDGES, EpochSummary, WatchedLayer, WatchedStep
from dist_relu.errors import WriteError
from dist_relu.nn import Sequential

T = TypeVar("T")

_RUN, _STEPS, _EPOCHS = "run.json", "steps.jsonl", "epochs.jsonl"
MODEL_FILE = "model.safetensors"
_MOST_BYTES = 2**30
_LONGEST_NAME = 200


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
    """A log folder, read.

    run: None if the folder has no run.json, or a damaged one.  left_out: what is damaged, each with its file.
    """

    run: RunInfo | None
    steps: list[WatchedStep]
    epochs: list[EpochSummary]
    left_out: list[str] = field(default_factory=list)


@final
class LogWriter:
    """Writes the log folder of a run while it goes on.  Use as a context manager.

    folder: is made if need be.  Raises `WriteError` for one that takes no files, and ValueError for one that holds such
    files already. What can't be written later is left out: `attempts` tells of it, and the run goes on.
    """

    def __init__(self, folder: Path, attempts: Attempts | None = None) -> None:
        make_folder(folder)
        check_is_free(folder)
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
        self._show(step.step, scalars(step), _distributions(step))

    def epoch(self, epoch: EpochSummary) -> None:
        """Add an epoch; for `Watch.on_epoch`."""
        with self._attempts.writing(self._folder / _EPOCHS):
            self._epochs.write(_line(vars(epoch)))
        self._show(epoch.epoch + 1, scalars_of_epoch(epoch))

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
        for name, file in ((_STEPS, self._steps), (_EPOCHS, self._epochs)):
            with self._attempts.writing(self._folder / name):
                file.close()
        self._close_events()
        if error is not None and self._info:
            message = str(error) or type(error).__name__
            self.run(replace(self._info, error="Interrupted." if kind is KeyboardInterrupt else message))


def check_is_free(folder: Path) -> None:
    """Raise ValueError for a folder in which a run would overwrite something."""
    there = [name for name in (_RUN, _STEPS, _EPOCHS, MODEL_FILE) if (folder / name).exists()]
    if there:
        raise ValueError(f"{folder} holds {', '.join(there)} already. Choose another folder for this run.")


def read_logs(folder: str | Path) -> Logs:
    """What is in a log folder, of a run that is over or still goes on; what is damaged of it is left out.

    Raises ValueError for a folder that `LogWriter` did not write, or in which nothing is whole.
    """
    folder = Path(folder)
    if not (folder / _STEPS).is_file():
        raise ValueError(f"{folder} has no {_STEPS}; expected a folder that dist-relu train --log-dir wrote.")
    left_out: list[str] = []
    run = _run(folder / _RUN, left_out)
    steps, epochs = _of_one_run(
        _lines(folder / _STEPS, _step, left_out), _lines(folder / _EPOCHS, _epoch, left_out), left_out
    )
    if left_out and not (run or steps or epochs):
        name, _, why = left_out[0].partition(": ")
        raise ValueError(
            f"{folder / name} is no log of a run; expected what dist-relu train --log-dir writes. {why.capitalize()}."
        )
    return Logs(run, steps, epochs, left_out)


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
    """The same of an epoch: means over it, and the numbers of dead units."""
    yield "epoch/loss", epoch.loss
    if epoch.accuracy is not None:
        yield "epoch/accuracy", epoch.accuracy
    for layer, units in (epoch.dead or {}).items():
        yield f"dead/{layer}", len(units)


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


def _reason(error: Exception) -> str:
    return (
        "it is nested too deep" if isinstance(error, RecursionError) else printable(str(error) or type(error).__name__)
    )


def _lines(path: Path, parse: Callable[[Any], T], left_out: list[str]) -> list[T]:
    """What the lines of a file stand for; tells of those that are left out, since they are damaged.

    A last line without an end is still being written, or never will be.
    """
    whole: list[T] = []
    damaged: list[str] = []
    try:
        *lines, _ = read_file(path, _MOST_BYTES).split(b"\n")
    except (OSError, ValueError) as error:
        left_out.append(f"{path.name}: {_reason(error)}")
        return []
    for number, line in enumerate(lines, 1):
        try:
            whole.append(parse(parse_json(line)))
        except (ValueError, RecursionError) as error:
            damaged.append(f"line {number}: {_reason(error)}")
    if damaged:
        count = f"{len(damaged)} of {len(lines)} lines, of which the first is " if len(damaged) > 1 else ""
        left_out.append(f"{path.name}: {count}{damaged[0]}")
    return whole


def _run(path: Path, left_out: list[str]) -> RunInfo | None:
    try:
        return made(RunInfo, parse_json(read_file(path, _MOST_BYTES)))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        left_out.append(f"{path.name}: {_reason(error)}")
        return None


def _step(content: Any) -> WatchedStep:
    step = made(WatchedStep, content)
    _check_numbers(step, ("step", "epoch", "lr", "samples_per_second"), ("accuracy",))
    for param in step.params:
        _check_numbers(param, ("gradient_norm", "update_ratio"))
    for layer in step.layers:
        _check_numbers(layer, ("silent", "variance"), ("sparsity",))
        _check_layer(layer)
    return step


def _epoch(content: Any) -> EpochSummary:
    epoch = made(EpochSummary, content)
    _check_numbers(epoch, ("epoch", "seconds"), ("accuracy",))
    return epoch


def _of_one_run(
    steps: list[WatchedStep], epochs: list[EpochSummary], left_out: list[str]
) -> tuple[list[WatchedStep], list[EpochSummary]]:
    """Those steps and epochs that have the layers and parameters that most steps have."""
    if not steps:
        return steps, epochs
    ((layers, params), _) = Counter(map(_names, steps)).most_common(1)[0]
    alike = [step for step in steps if _names(step) == (layers, params) and all(map(_is_name, (*layers, *params)))]
    fitting = [epoch for epoch in epochs if epoch.dead is None or epoch.dead.keys() == set(layers)]
    for name, given, kept in ((_STEPS, steps, alike), (_EPOCHS, epochs, fitting)):
        if len(kept) < len(given):
            left_out.append(f"{name}: {len(given) - len(kept)} of {len(given)} lines have other layers or parameters")
    return alike, fitting


def _names(step: WatchedStep) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(layer.name for layer in step.layers), tuple(param.name for param in step.params)


def _is_name(text: str) -> bool:
    return text.isprintable() and len(text) <= _LONGEST_NAME


def _check_layer(layer: WatchedLayer) -> None:
    counts = layer.preactivations
    if layer.num_units < 1:
        raise ValueError(f"{layer.name} has {layer.num_units} units")
    if counts is not None and (len(counts) != len(PREACTIVATION_EDGES) - 1 or min(counts) < 0):
        raise ValueError(f"{layer.name} has pre-activations in other bins than ours")


def _check_numbers(value: Any, not_negative: Sequence[str], shares: Sequence[str] = ()) -> None:
    """Raise ValueError for numbers out of bounds; NaN and None are in them."""
    for name in (*not_negative, *shares):
        number = getattr(value, name)
        if number is not None and (number < 0 or (name in shares and number > 1)):
            raise ValueError(f"{name} is {number}")

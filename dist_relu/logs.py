"""What was seen of a run, as files: JSON lines, and event files for TensorBoard where that is installed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from dist_relu.watching import WatchedLayer, WatchedParam, WatchedStep


def write_logs(folder: Path, steps: Sequence[WatchedStep]) -> None:
    """Write `steps.jsonl`, a line for each step, and an event file.  folder: is made if need be.  Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(asdict(step)) + "\n" for step in steps)
    (folder / "steps.jsonl").write_text("".join(lines))
    if find_spec("tensorboard"):
        _write_events(folder, steps)


def read_logs(path: Path) -> list[WatchedStep]:
    """What `write_logs` wrote, from the folder or the file.  Raises OSError, and ValueError for another file."""
    path = path / "steps.jsonl" if path.is_dir() else path
    steps = []
    try:
        for line in path.read_text().splitlines():
            step = json.loads(line)
            layers = [WatchedLayer(**layer) for layer in step.pop("layers")]
            params = [WatchedParam(**param) for param in step.pop("params")]
            steps.append(WatchedStep(**step, layers=layers, params=params))
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError, KeyError, AttributeError):
        raise ValueError(f"{path} is no log of a run; expected what dist-relu train --log-dir writes.") from None
    if not steps:
        raise ValueError(f"{path} holds no steps.")
    return steps


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


def _write_events(folder: Path, steps: Sequence[WatchedStep]) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder))
    try:
        for step in steps:
            values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars(step)]
            writer.add_event(Event(step=step.step, wall_time=time.time(), summary=Summary(value=values)))
    finally:
        writer.close()

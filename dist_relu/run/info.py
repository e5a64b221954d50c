"""What stands in the run.json of a log folder or a folder of checkpoints: what was run, and what it came to.

With its options data and model can be made again, with its settings it can be seen whether they are the same.
`run.schema.json` beside this module is a JSON Schema of the file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dist_relu.core import machine
from dist_relu.core.files import write_json
from dist_relu.core.untrusted import made, parse_json, read_file

RUN_FILE, STATE_FILE = "run.json", "state.safetensors"
FORMAT = 1
"""Raised by what older versions would read wrongly."""

_MOST_BYTES = 2**30


@dataclass(frozen=True)
class RunInfo:
    """What was run.

    options: of the command, by their names; what was not given has its default.  layers: the model as Python writes it.
    summary: the table of `nn.summary`.  started: when, in ISO 8601.  cpu, blas, versions: as in `--report`.
    results: empty until the run is over; then those of `--report`, with test_loss and test_accuracy.
    error: why it ended before its time, where it could still say so.
    settings: what fixes the bits beside versions and cpu, see `RunState.settings`; empty in files of format 0.
    tuning: what was found by trying, and the times that decided, see `Tuning`; empty where nothing was to be found.
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
    settings: dict[str, Any] = field(default_factory=dict)
    tuning: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT


def read_run_info(folder: Path) -> RunInfo:
    """The run.json of a folder.  Raises OSError, and ValueError for what is none, or of a newer version."""
    content = parse_json(read_file(folder / RUN_FILE, _MOST_BYTES))
    if isinstance(content, dict):
        number = content.setdefault("format", 0)
        if type(number) is int and number > FORMAT:
            raise ValueError(f"it has format {number}, and this version of dist_relu reads {FORMAT}: update it")
    return made(RunInfo, content)


def write_run_info(info: RunInfo, folder: Path) -> None:
    """Write the run.json of a folder.  Raises `WriteError`."""
    write_json(folder / RUN_FILE, {"format": info.format, **vars(info)})


def different_surroundings(info: RunInfo) -> list[str]:
    """Say what decides about bits and is another one here than it was in a run: versions of programs, the processor."""
    here = {**machine.versions(), "cpu": machine.cpu_name()}
    there = {**info.versions, "cpu": info.cpu}
    return [
        f"{name} was {value} and is {here.get(name, 'missing')}"
        for name, value in there.items()
        if here.get(name) != value
    ]

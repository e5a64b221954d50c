"""Log folders that were damaged, in bytes or in what the JSON says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import dist_relu as dr
from dist_relu import nn, optim
from dist_relu.reports.log_writer import LogWriter
from dist_relu.reports.logs import Logs, read_logs
from dist_relu.reports.page import page
from dist_relu.run.info import RunInfo
from tests.long.harness import check_refused, dumped, mutate_bytes, mutate_json

_NAMES = "run.json", "steps.jsonl", "epochs.jsonl"
_DRAWN_SHARE = 0.003
"""Of the mutations; a page takes seconds."""


@dataclass(frozen=True)
class Files:
    folder: Path
    contents: dict[str, bytes]
    logs: Logs


def prepare(folder: Path) -> Files:
    rng = np.random.default_rng(0)
    data = rng.standard_normal((60, 5)), rng.integers(0, 3, 60)
    with dr.start(backend="serial") as coordinator:
        result = coordinator.fit(nn.mlp([6, 4], 3), data, optim.SGD(), epochs=4, batch_size=10, watch=dr.Watch(2))
    results = {"steps": 24, "seconds": 1.5, "samples_per_second": 100.0, "step_ms_median": 1.0, "params_sha256": "abc"}
    results |= {"test_accuracy": 0.5, "test_loss": 1.0, "train_loss": None}
    options = {
        "data": "digits",
        "model": "mlp:6,4",
        "epochs": 4,
        "lr": 0.1,
        "seed": 0,
        "batch-size": 10,
        "augment": None,
    }
    with LogWriter(folder) as writer:
        writer.run(
            RunInfo(options, "Sequential()", "0 Dense", "SGD()", 60, 9, "serial", 1, 1, 1, "now", "a", "b", {}, results)
        )
        for step in result.watched:
            writer.step(step)
        for epoch in result.epochs:
            writer.epoch(epoch)
    return Files(folder, {name: (folder / name).read_bytes() for name in _NAMES}, read_logs(folder))


def attempt(files: Files, rng: np.random.Generator) -> None:
    contents = dict(files.contents)
    for name in rng.choice(_NAMES, int(rng.choice([1, 1, 2])), replace=False):
        contents[name] = _odd(rng, contents[name]) if rng.random() < 0.6 else mutate_bytes(rng, contents[name])
    for name, content in contents.items():
        (files.folder / name).write_bytes(content)
    logs = check_refused(lambda: read_logs(files.folder), ValueError)
    if logs is None:
        return
    for name, originals, read in (
        ("steps.jsonl", files.logs.steps, logs.steps),
        ("epochs.jsonl", files.logs.epochs, logs.epochs),
    ):
        there = contents[name].split(b"\n")[:-1]
        if contents["steps.jsonl"].count(b"\n") < 3:
            continue  # of two steps that differ nobody knows which is of this run
        for line, original in zip(files.contents[name].splitlines(), originals, strict=True):
            assert line not in there or original in read, f"a whole line of {name} is left out: {logs.left_out}"
    if rng.random() < _DRAWN_SHARE and logs.run:
        assert page(logs, files.folder).startswith("<!doctype html>")


def _odd(rng: np.random.Generator, content: bytes) -> bytes:
    """With odd values in the JSON of one line."""
    lines = content.splitlines() if content.count(b"\n}\n") == 0 else [content]
    number = int(rng.integers(len(lines)))
    lines[number] = dumped(mutate_json(rng, json.loads(lines[number]))).encode()
    return b"".join(line.rstrip(b"\n") + b"\n" for line in lines)

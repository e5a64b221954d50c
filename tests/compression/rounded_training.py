"""Trains with gradients of 16 bits and without, on whatever workers there are, and tells what came of it as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

import dist_relu as dr
from dist_relu import compression, nn, optim

SHARDS = 6
WAYS = [
    (compression.Rounded("bfloat16"), "float32"),
    (compression.Rounded("float16", groups=3), "float32"),
    (compression.Rounded("bfloat16", groups=3), "float64"),
    (compression.Rounded("float16"), "float64"),
    (compression.Rounded("bfloat16", groups=1), "float32"),  # of which each node has a part
]
"""What numbers are rounded to, and what the model computes in."""


def model_of(dtype: str) -> nn.Sequential:
    """A gradient that is a product, others that are not, and running means, which are not rounded."""
    layers = [nn.Dense(300), nn.BatchNorm(), nn.ReLU(), nn.Dense(20), nn.BatchNorm(), nn.ReLU(), nn.Dense(10)]
    return nn.Sequential(*layers, dtype=dtype)


def train(coordinator: dr.Coordinator, dtype: str, steps: int, **options: Any) -> nn.Sequential:
    data, rule, model = dr.data.load("digits").train, optim.SGD(0.1, momentum=0.9), model_of(dtype)
    with coordinator.trainer(model, data, rule, batch_size=96, shards=SHARDS, seed=1, **options) as trainer:
        trainer.fit(steps=steps)
    return model


def digests(coordinator: dr.Coordinator) -> list[str]:
    return [train(coordinator, dtype, steps=5, compression=how).sha256() for how, dtype in WAYS]


def bytes_per_step(coordinator: dr.Coordinator, folder: Path, how: compression.Compression | None) -> float:
    """Count the bytes that workers send one another in a step."""
    trace, path = dr.Trace(), folder / "trace.json"
    train(coordinator, "float32", steps=4, compression=how, trace=trace)
    trace.save(path)
    events = json.loads(path.read_text())["traceEvents"]
    sizes = [event["args"]["bytes"] for event in events if "bytes" in event.get("args", ())]
    return float(np.sum(sizes)) / 4


if __name__ == "__main__":
    with dr.start(backend="mpi") as coordinator:
        found = {
            "nodes": coordinator.nodes,
            "digests": digests(coordinator),
            "bytes": [bytes_per_step(coordinator, Path(sys.argv[1]), how) for how in (None, WAYS[0][0])],
        }
        sys.stdout.write(json.dumps(found))

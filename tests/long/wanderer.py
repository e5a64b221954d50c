"""Runs that wander: python wanderer.py FOLDER WORKERS [BACKEND] takes each some random steps on, from file to file.

Prints a line for each run with its step and the digests of its parameters, and those of runs that stayed at home: in
one call, in calls of one epoch, and in seven calls of odd numbers of steps.
"""

from __future__ import annotations

import json
import random
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import dist_relu as dr
from dist_relu import nn, optim

EPOCHS, SAMPLES, BATCH_SIZE = 5, 210, 16
SEVEN_CALLS = (1, 3, 5, 7, 9, 11)  # and what is left
RNG = np.random.default_rng(7)
X = RNG.standard_normal((SAMPLES, 6)).astype("float32")
Y = RNG.integers(0, 3, SAMPLES)
IMAGES = RNG.standard_normal((SAMPLES, 6, 6, 1)).astype("float32")
SERIES = RNG.standard_normal((SAMPLES, 5, 3)).astype("float32")
VALUES = RNG.standard_normal((SAMPLES, 4)).astype("float32")


def cnn() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(4, 3), nn.BatchNorm(), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Dense(3))


MODELS: dict[str, tuple[Any, Any, Callable[[], nn.Sequential]]] = {
    "mlp": (X, Y, lambda: nn.mlp((20,), 3)),
    "cnn": (IMAGES, Y, cnn),
    "rnn": (SERIES, Y, lambda: nn.rnn(8, 3)),
    "policy": (X, VALUES, lambda: nn.policy(6, 3, (16, 16))),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "momentum": {"optimizer": optim.SGD(optim.Cosine(0.05, EPOCHS), momentum=0.9)},
    "adamw": {"optimizer": optim.AdamW(0.01)},
    "lamb": {"optimizer": optim.LAMB(0.01), "clip_norm": 1.0, "accumulate": 2, "ema_decay": 0.9},
}


def trainer_of(coordinator: dr.Coordinator, model: str, options: str, state: dr.RunState | None = None) -> dr.Trainer:
    x, y, make = MODELS[model]
    return coordinator.trainer(
        make(), (x, y), **OPTIONS[options], batch_size=BATCH_SIZE, shards=4, seed=11, state=state
    )


def digests(trainer: dr.Trainer) -> list[str]:
    average = trainer.average
    return [trainer.model.sha256(), *([average.sha256()] if average else [])]


def at_home(coordinator: dr.Coordinator, model: str, options: str) -> list[list[str]]:
    """The digests of the same run, cut into calls in three ways."""
    found = []
    for way in ("one call", "epochs", "seven calls"):
        with trainer_of(coordinator, model, options) as trainer:
            last = EPOCHS * trainer.steps_per_epoch
            match way:
                case "one call":
                    trainer.fit(epochs=EPOCHS)
                case "epochs":
                    for _ in range(EPOCHS):
                        trainer.fit(epochs=1)
                case "seven calls":
                    for steps in (*SEVEN_CALLS, last - sum(SEVEN_CALLS)):
                        trainer.fit(steps=min(steps, last - trainer.step))
                        if trainer.step == last:
                            break
            found.append(digests(trainer))
    return found


def wander(coordinator: dr.Coordinator, folder: Path, stop: str) -> None:
    """Take each run on.  stop: "end", or the name of this stop."""
    for model in MODELS:
        for options in OPTIONS:
            path = folder / f"{model}-{options}.safetensors"
            state = dr.load_state(path) if path.exists() else None
            with trainer_of(coordinator, model, options, state) as trainer:
                last = EPOCHS * trainer.steps_per_epoch
                chance = random.Random(zlib.crc32(f"{stop} {path.name}".encode()))
                steps = last - trainer.step if stop == "end" else chance.randint(0, (last - trainer.step) // 3)
                if steps:
                    trainer.fit(steps=steps)
                dr.save_state(trainer.state(), path)
                line = {"run": path.stem, "step": trainer.step, "digests": digests(trainer)}
            print(json.dumps(line | {"at_home": at_home(coordinator, model, options)}), flush=True)  # noqa: T201


if __name__ == "__main__":
    folder, stop, workers, backend = sys.argv[1:]
    with dr.start(int(workers), backend=backend) as coordinator:
        wander(coordinator, Path(folder), stop)

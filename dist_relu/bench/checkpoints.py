"""What checkpoints cost a run beside the same run without any, by turns."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np

from dist_relu.bench.short_runs import CASES
from dist_relu.coordinator import start
from dist_relu.nn import mlp
from dist_relu.optim import SGD
from dist_relu.run.checkpoints import Checkpoint
from dist_relu.run.trainer import Trainer

_EVERY = 100
_STEPS = 2 * _EVERY
"""Of a turn, which begins and ends between two checkpoints, so that these are all written within it."""


@dataclass(frozen=True)
class Cost:
    """Median times of a training step (SGD with momentum), and the median over rounds of their ratio, less 1."""

    case: str
    workers: int
    folder: str
    plain_ms: float
    saved_ms: float
    cost: float


@dataclass(eq=False)
class _Stopwatch:
    """Measures a call from its first step to its last, without what is done in its end."""

    seconds: float = field(init=False, default=0.0)

    def on_fit_begin(self, trainer: Trainer, *, validates: bool) -> None:
        self.seconds = -perf_counter()

    def on_fit_end(self, trainer: Trainer) -> None:
        self.seconds += perf_counter()


def run(workers: int, rounds: int, folders: list[Path]) -> Iterator[list[Cost]]:
    """Train mlp-medium without checkpoints, and with one every 100 steps in each of the folders.

    Yields what all rounds come to after each of them.
    """
    (case,) = [case for case in CASES if case.name == "mlp-medium"]
    data = case.data()
    times = np.empty((rounds, 1 + len(folders)))
    with start(workers, backend="local") as coordinator:
        optimizer = SGD(0.01, momentum=0.9)
        with coordinator.trainer(mlp(case.hidden, 10), data, optimizer, batch_size=case.batch_size) as trainer:
            trainer.fit(steps=_EVERY // 2)
            turns = list(enumerate([None, *folders]))
            for i in range(rounds):
                for j, folder in turns if i % 2 else reversed(turns):  # who comes behind whom changes
                    times[i, j] = _step_ms(trainer, folder)
                of_rounds = times[: i + 1]
                plain, *saved = np.median(of_rounds, axis=0).tolist()
                costs = np.median(of_rounds[:, 1:] / of_rounds[:, :1], axis=0) - 1
                yield [
                    Cost(case.name, workers, str(folder), plain, ms, cost)
                    for folder, ms, cost in zip(folders, saved, costs.tolist(), strict=True)
                ]


def _step_ms(trainer: Trainer, folder: Path | None) -> float:
    """Train so many steps, with checkpoints unless there is no folder for them."""
    stopwatch = _Stopwatch()
    with tempfile.TemporaryDirectory(dir=folder) as place:
        checkpoints = [] if folder is None else [Checkpoint(place, every=_EVERY)]
        trainer.fit(steps=_STEPS, callbacks=[stopwatch, *checkpoints])
    return stopwatch.seconds / _STEPS * 1e3

"""What it costs to watch every step of a run, beside the same run unwatched, by turns on the same workers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dist_relu.bench.scaling import CASES
from dist_relu.coordinator import start
from dist_relu.data import Dataset
from dist_relu.nn import mlp
from dist_relu.optim import SGD
from dist_relu.watching import Watch


@dataclass(frozen=True)
class Watching:
    """Median times of a training step (SGD with momentum); cost: the median over rounds of their ratio, less 1."""

    case: str
    workers: int
    plain_ms: float
    watched_ms: float
    cost: float


def run(workers: int, rounds: int) -> list[Watching]:
    """Train every case unwatched and with every step watched, by turns."""
    results = []
    rng = np.random.default_rng(0)
    with start(workers, backend="local") as coordinator:
        for case in CASES:
            num_samples = case.batch_size * case.steps
            x = rng.standard_normal((num_samples, case.inputs), np.float32)
            data = Dataset(x, rng.integers(0, 10, num_samples))
            times = np.empty((rounds, 2))
            for i in range(rounds):
                for j, watch in enumerate((None, Watch(every=1))):
                    result = coordinator.fit(
                        mlp(case.hidden, 10),
                        data,
                        SGD(0.01, momentum=0.9),
                        epochs=1,
                        batch_size=case.batch_size,
                        watch=watch,
                    )
                    times[i, j] = np.median(result.step_seconds) * 1e3
            plain_ms, watched_ms = np.median(times, axis=0)
            cost = float(np.median(times[:, 1] / times[:, 0])) - 1
            results.append(Watching(case.name, workers, float(plain_ms), float(watched_ms), cost))
    return results

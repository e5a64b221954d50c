"""The speed of several workers beside that of one, by turns in one run."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from dist_relu.coordinator import start
from dist_relu.data import Dataset
from dist_relu.nn import mlp
from dist_relu.optim import SGD


@dataclass(frozen=True)
class Case:
    """A model and the batch that it is trained on."""

    name: str
    inputs: int
    hidden: tuple[int, ...]
    batch_size: int
    steps: int

    def data(self) -> Dataset:
        """Draw the samples of an epoch, of which something can be learned: runs that learn nothing warn of that."""
        rng, number = np.random.default_rng(0), self.batch_size * self.steps
        x, y = rng.standard_normal((number, self.inputs), np.float32), rng.integers(0, 10, number)
        x[np.arange(number), y] += 5
        return Dataset(x, y)


CASES = [
    Case("mlp-tiny", 784, (64, 32, 16), 64, 400),
    Case("mlp-small", 784, (256, 128), 128, 200),
    Case("mlp-medium", 784, (1024, 1024), 256, 40),
]


@dataclass(frozen=True)
class Scaling:
    """Median times of a training step (SGD with momentum)."""

    case: str
    workers: int
    one_ms: float
    several_ms: float
    speed_up: float


def run(workers: int, rounds: int) -> list[Scaling]:
    """Train every case on one worker and on `workers`, by turns; the speed-up is the median over rounds."""
    results = []
    with ExitStack() as stack:
        coordinators = [stack.enter_context(start(number, backend="local")) for number in (1, workers)]
        for case in CASES:
            data = case.data()
            times = np.empty((rounds, 2))
            for i in range(rounds):
                for j, coordinator in enumerate(coordinators):
                    result = coordinator.fit(
                        mlp(case.hidden, 10),
                        data,
                        SGD(0.01, momentum=0.9),
                        epochs=1,
                        batch_size=case.batch_size,
                    )
                    times[i, j] = np.median(result.step_seconds) * 1e3
            one_ms, several_ms = np.median(times, axis=0)
            speed_up = float(np.median(times[:, 0] / times[:, 1]))
            results.append(Scaling(case.name, workers, float(one_ms), float(several_ms), speed_up))
    return results

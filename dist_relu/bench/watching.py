"""What it costs to watch a run, every step of it or one of many, beside the same run unwatched, by turns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dist_relu.bench.short_runs import CASES
from dist_relu.coordinator import start
from dist_relu.engine.watch.records import Watch
from dist_relu.nn import mlp
from dist_relu.optim import SGD


@dataclass(frozen=True)
class Watching:
    """Median times of a training step (SGD with momentum), and the medians over rounds of their ratios, less 1.

    between: of a step that is not watched, in a run with a watch.  watched: of one that is.
    """

    case: str
    workers: int
    plain_ms: float
    between_ms: float
    watched_ms: float
    between_cost: float
    watched_cost: float


def run(workers: int, rounds: int) -> Iterator[list[Watching]]:
    """Train every case without a watch, with one that hardly ever looks, and with one that looks at every step.

    Each other round goes in the opposite order. A ratio is that of two rounds, in which a machine that becomes faster
    or slower meanwhile has been as much for as against each of them. Yields all that was measured after each case.
    """
    results: list[Watching] = []
    with start(workers, backend="local") as coordinator:
        for case in CASES:
            data = case.data()
            turns = list(enumerate([None, Watch(every=case.steps), Watch(every=1)]))
            times = np.empty((2 * rounds, len(turns)))
            for i in range(2 * rounds):
                for j, watch in reversed(turns) if i % 2 else turns:
                    result = coordinator.fit(
                        mlp(case.hidden, 10),
                        data,
                        SGD(0.01, momentum=0.9),
                        epochs=1,
                        batch_size=case.batch_size,
                        watch=watch,
                    )
                    times[i, j] = np.median(result.step_seconds) * 1e3
            pairs = times.reshape(rounds, 2, len(turns)).mean(axis=1)
            costs = np.median(pairs[:, 1:] / pairs[:, :1], axis=0) - 1
            results.append(Watching(case.name, workers, *np.median(times, axis=0).tolist(), *costs.tolist()))
            yield [*results]

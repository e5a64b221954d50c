"""Our classifier beside scikit-learn's MLPClassifier: epochs of the same network on the same samples, by turns."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from dist_relu.data import Split
from dist_relu.errors import TrainingWarning

_HIDDEN = (100,)
_BATCH = 200


@dataclass(frozen=True)
class Fit:
    """A fit, with the start of workers and their end: medians over rounds of seconds, and of the ratio.

    cores: processes of ours, threads of scikit-learn's BLAS.
    """

    dtype: str
    cores: int
    ours_s: float
    sklearn_s: float
    ratio: float
    our_accuracy: float
    sklearn_accuracy: float


def run(data: Split, epochs: int, cores: int, rounds: int) -> Iterator[list[Fit]]:
    """Train by turns on float32 and float64, on one core and on several; accuracies are of the test set.

    Yields all that was measured after each fit.
    """
    fits: list[Fit] = []
    for dtype in ("float32", "float64"):
        for number in [1, cores] if cores > 1 else [1]:
            fits.append(_fit(data, epochs, dtype, number, rounds))
            yield [*fits]


def _fit(data: Split, epochs: int, dtype: str, cores: int, rounds: int) -> Fit:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    from dist_relu.integrations.sklearn import ReLUClassifier

    x, x_test = data.train.x.astype(dtype), data.test.x.astype(dtype)

    def timed(make: Callable[[], Any]) -> tuple[float, float]:
        estimator = make()
        began = time.perf_counter()
        with threadpool_limits(cores, "blas"), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.simplefilter("ignore", TrainingWarning)
            estimator.fit(x, data.train.y)
        seconds = time.perf_counter() - began
        return seconds, float(estimator.score(x_test, data.test.y))

    same: dict[str, Any] = {"hidden_layer_sizes": _HIDDEN, "batch_size": _BATCH, "max_iter": epochs, "random_state": 1}
    sides: list[Callable[[], Any]] = [
        lambda: ReLUClassifier(**same, n_workers=cores, shards=max(cores, 4)),
        lambda: MLPClassifier(**same),
    ]
    timed(sides[0])  # compiles kernels
    measured = np.empty((rounds, 2, 2))
    for i in range(rounds):
        for side in (0, 1) if i % 2 else (1, 0):
            measured[i, side] = timed(sides[side])
    (ours, theirs), (our_accuracy, accuracy) = np.median(measured, axis=0).T.tolist()
    ratio = float(np.median(measured[:, 1, 0] / measured[:, 0, 0]))
    return Fit(dtype, cores, ours, theirs, ratio, our_accuracy, accuracy)

"""scikit-learn's side of comparisons: MLPClassifier in one process, whose BLAS has a thread for each core."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import numpy as np

from dist_relu.bench.cases import LR, MOMENTUM, Beginning, Case
from dist_relu.bench.sides import UNKNOWN, Side


def expresses(case: Case) -> bool:
    """Tell whether there is such a network: dense layers, and more than two classes."""
    return case.kind == "mlp" and case.outputs > 2


@final
class Sklearn(Side):
    """Training by `partial_fit`, with as many batches in a call as lie behind one another."""

    def __init__(self) -> None:
        self._network: Any

    def instruction_set(self) -> str:
        return UNKNOWN

    def prepare(self, case: Case, beginning: Beginning) -> None:
        from sklearn.neural_network import MLPClassifier

        self._x, self._y = case.samples()
        self._batch_size, self._next = case.batch_size, 0
        self._network = network = MLPClassifier(
            case.sizes,
            solver="sgd",
            learning_rate_init=LR,
            momentum=MOMENTUM,
            nesterovs_momentum=False,
            alpha=0.0,
            batch_size=case.batch_size,
            shuffle=False,
        )
        network.partial_fit(self._x[: case.batch_size], self._y[: case.batch_size], classes=np.arange(case.outputs))
        parameters = beginning.parameters()
        network.coefs_ = [np.array(weight) for weight in parameters[::2]]
        network.intercepts_ = [np.array(bias) for bias in parameters[1::2]]
        del network._optimizer  # it has the momentum of the step that made the arrays

    def train(self, num_steps: int) -> float:
        left = num_steps - 1
        while left:
            steps = min(left, len(self._x) // self._batch_size - self._next)
            self._fit(steps)
            left -= steps
        self._fit(1)  # whose loss is told
        return float(self._network.loss_)

    def _fit(self, steps: int) -> None:
        """Train on so many batches, which the epoch still has."""
        rows = slice(self._next * self._batch_size, (self._next + steps) * self._batch_size)
        self._network.partial_fit(self._x[rows], self._y[rows])
        self._next = (self._next + steps) % (len(self._x) // self._batch_size)


@contextmanager
def with_threads(number: int) -> Iterator[Sklearn]:
    """Start scikit-learn's side."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(len(os.sched_getaffinity(0)), "blas"):
        yield Sklearn()

"""What training and testing come to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dist_relu.arrays import Array
from dist_relu.nn import Sequential
from dist_relu.training import Trace


@dataclass(frozen=True)
class EpochSummary:
    """Means over the samples of an epoch, as they were when they were trained on; accuracy is None without classes."""

    loss: float
    accuracy: float | None
    seconds: float


@dataclass(frozen=True)
class FitResult:
    """What a training run did.

    losses and step_seconds: (steps,), the mean loss of each step's samples and its duration.
    average: with `ema_decay`, the model with its averaged parameters, to evaluate or save like any other.
    """

    epochs: list[EpochSummary]
    losses: Array
    step_seconds: Array
    seconds: float
    samples_per_second: float
    average: Sequential | None = None


@dataclass(frozen=True)
class Evaluation:
    """Means over all samples; accuracy is None without classes."""

    loss: float
    accuracy: float | None
    num_samples: int


def fit_result(trace: Trace, per_epoch: int, average: Sequential | None, *, has_classes: bool) -> FitResult:
    """What the steps of a run come to.  per_epoch: the number of steps."""
    epochs = []
    for first in range(0, len(trace.loss), per_epoch):
        part = slice(first, first + per_epoch)
        num_samples = trace.num_samples[part]
        loss = float(np.average(trace.loss[part], weights=num_samples))
        accuracy = float(trace.hits[part].sum() / num_samples.sum()) if has_classes else None
        epochs.append(EpochSummary(loss, accuracy, float(trace.seconds[part].sum())))
    seconds = float(trace.seconds.sum())
    return FitResult(epochs, trace.loss, trace.seconds, seconds, float(trace.num_samples.sum() / seconds), average)

"""What training and testing come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dist_relu.arrays import Array
from dist_relu.nn import Sequential
from dist_relu.optim import Optimizer
from dist_relu.training import Trace
from dist_relu.watching import WatchedLayer, WatchedStep, learning_rate, watched_params


@dataclass(frozen=True)
class EpochSummary:
    """Means over the samples of an epoch, as they were when they were trained on; accuracy is None without classes."""

    loss: float
    accuracy: float | None
    seconds: float


@dataclass(frozen=True)
class FitResult:
    """What a training run did.

    losses, accuracies, step_seconds: (steps,), the mean loss of each step's samples, the share of them that was right
    before the step, and its duration; accuracies is None without classes.
    average: with `ema_decay`, the model with its averaged parameters, to evaluate or save like any other.
    watched: with `watch`, what was seen.
    """

    epochs: list[EpochSummary]
    losses: Array
    accuracies: Array | None
    step_seconds: Array
    seconds: float
    samples_per_second: float
    average: Sequential | None = None
    watched: list[WatchedStep] = field(default_factory=list)


@dataclass(frozen=True)
class Evaluation:
    """Means over all samples; accuracy is None without classes."""

    loss: float
    accuracy: float | None
    num_samples: int


def fit_result(
    trace: Trace, per_epoch: int, average: Sequential | None, watched: list[WatchedStep], *, has_classes: bool
) -> FitResult:
    """What the steps of a run come to.  per_epoch: the number of steps."""
    epochs = []
    for first in range(0, len(trace.loss), per_epoch):
        part = slice(first, first + per_epoch)
        num_samples = trace.num_samples[part]
        loss = float(np.average(trace.loss[part], weights=num_samples))
        accuracy = float(trace.hits[part].sum() / num_samples.sum()) if has_classes else None
        epochs.append(EpochSummary(loss, accuracy, float(trace.seconds[part].sum())))
    seconds = float(trace.seconds.sum())
    per_second = float(trace.num_samples.sum() / seconds)
    accuracies = trace.hits / trace.num_samples if has_classes else None
    return FitResult(epochs, trace.loss, accuracies, trace.seconds, seconds, per_second, average, watched)


def watched_steps(
    every: int,
    trace: Trace,
    layers: Sequence[list[WatchedLayer]],
    names: Sequence[str],
    optimizer: Optimizer,
    per_epoch: int,
    *,
    has_classes: bool,
) -> list[WatchedStep]:
    """What was seen of the steps that were taken.  layers: of each watched step.  names: of the parameters."""
    return [
        WatchedStep(
            step,
            step // per_epoch,
            float(trace.loss[step]),
            float(trace.hits[step] / trace.num_samples[step]) if has_classes else None,
            learning_rate(optimizer, (step + 0.5) / per_epoch),
            float(trace.num_samples[step] / trace.seconds[step]),
            seen,
            watched_params(names, norms),
        )
        for step, seen, norms in zip(range(0, len(trace.loss), every), layers, trace.norms, strict=False)
    ]

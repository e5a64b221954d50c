"""Results say what training and testing came to."""

from __future__ import annotations

from dataclasses import dataclass, field

from dist_relu.core.arrays import Array
from dist_relu.engine.loop import Trace
from dist_relu.engine.watch.records import EpochSummary, WatchedStep
from dist_relu.nn import Sequential


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """This result says what a training run did.

    losses, accuracies, step_seconds: (steps,), the mean loss of each step's samples, the share of them that was right
    before the step, and its duration; accuracies is None without classes.
    average: with `ema_decay`, the model with its averaged parameters, to evaluate or save like any other.
    watched: with `watch`, what was seen, unless `Watch.on_step` got it.
    """

    epochs: list[EpochSummary]
    losses: Array
    accuracies: Array | None
    step_seconds: Array
    seconds: float
    samples_per_second: float
    average: Sequential | None = None
    watched: list[WatchedStep] = field(default_factory=list)

    def __repr__(self) -> str:
        last = self.epochs[-1]
        accuracy = "" if last.accuracy is None else f", accuracy {last.accuracy:.2%}"
        return (
            f"FitResult(epochs: {len(self.epochs)}, steps: {len(self.losses)}, in the last epoch loss {last.loss:.4g}"
            f"{accuracy}; {self.seconds:.3g} s, {self.samples_per_second:,.0f} samples/s)"
        )


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """An evaluation has means over all samples; accuracy is None without classes."""

    loss: float
    accuracy: float | None
    num_samples: int


def fit_result(
    trace: Trace,
    epochs: list[EpochSummary],
    average: Sequential | None,
    watched: list[WatchedStep],
    *,
    has_classes: bool,
) -> FitResult:
    """Form the result of a run from what its steps came to."""
    seconds = float(trace.seconds.sum())
    per_second = float(trace.num_samples.sum() / seconds)
    accuracies = trace.num_correct / trace.num_samples if has_classes else None
    return FitResult(
        epochs=epochs,
        losses=trace.loss,
        accuracies=accuracies,
        step_seconds=trace.seconds,
        seconds=seconds,
        samples_per_second=per_second,
        average=average,
        watched=watched,
    )

"""Results say what training and testing came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.html import curve, share_text, table
from dist_relu.engine.watch.records import EpochSummary, WatchedStep, in_words
from dist_relu.nn import Sequential

_EPOCHS_SHOWN = 20


def metrics_in_words(metrics: Mapping[str, float]) -> list[str]:
    """Metrics that are numbers, in few characters each: "f1_macro 0.9412"."""
    return [f"{name} {value:.4g}" for name, value in metrics.items()]


@dataclass(frozen=True, kw_only=True)
class Validated:
    """A validation came to this, after so many steps and complete epochs; accuracy is None of numbers.

    metrics: those that were asked for, by name.
    """

    step: int
    epoch: int
    loss: float
    accuracy: float | None
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def in_words(self) -> str:
        """What it came to: "loss 0.1234, accuracy 95.00%, f1_macro 0.9412"."""
        return ", ".join([in_words(self.loss, self.accuracy), *metrics_in_words(self.metrics)])

    def _repr_html_(self) -> str:
        row = [f"step {self.step}", self.epoch, self.loss, share_text(self.accuracy), *self.metrics.values()]
        return table("Validation", ["after", "epochs", "loss", "accuracy", *self.metrics], [row])


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """This result says what a training run did.

    losses, accuracies, step_seconds: (steps,), the mean loss of each step's samples, the share of them that was right
    before the step, and its duration; accuracies is None of numbers. Losses are means by weights where samples have
    some, accuracies count samples.
    Losses and accuracies of steps that were skipped are NaN; means are over the others.
    average: with `ema_decay`, the model with its averaged parameters, to evaluate or save like any other.
    watched: with `watch`, what was seen, unless `Watch.on_step` got it.
    epochs: those that ended in this call.  validations: of the call, in their order.
    """

    epochs: list[EpochSummary]
    losses: Array
    accuracies: Array | None
    step_seconds: Array
    seconds: float
    samples_per_second: float
    average: Sequential | None = None
    watched: list[WatchedStep] = field(default_factory=list)
    validations: list[Validated] = field(default_factory=list)

    def __repr__(self) -> str:
        came_to = ""
        if self.epochs:
            last = self.epochs[-1]
            came_to = f", in the last epoch {in_words(last.loss, last.accuracy)}"
        return (
            f"FitResult(epochs: {len(self.epochs)}, steps: {len(self.losses)}{came_to}; "
            f"{self.seconds:.3g} s, {self.samples_per_second:,.0f} samples/s)"
        )

    def _repr_html_(self) -> str:
        """A table of the last epochs, and the losses of all steps as a curve, for notebooks."""
        shown = self.epochs[-_EPOCHS_SHOWN:]
        title = (
            f"{len(self.epochs):,} epochs, {len(self.losses):,} steps, {self.seconds:.3g} s, "
            f"{self.samples_per_second:,.0f} samples/s{', the last epochs' if len(shown) < len(self.epochs) else ''}"
        )
        validated = {one.epoch - 1: one for one in self.validations}  # after how many epochs it was
        measured = list(dict.fromkeys(name for one in self.validations for name in one.metrics))
        rows = []
        for epoch in shown:
            validation = validated.get(epoch.epoch)
            row = [f"epoch {epoch.epoch}", epoch.loss, share_text(epoch.accuracy)]
            if validation:
                row += [validation.loss, share_text(validation.accuracy), *map(validation.metrics.get, measured)]
            elif validated:
                row += [None] * (2 + len(measured))
            rows.append([*row, epoch.seconds])
        of_validations = ["validation loss", "accuracy", *measured] if validated else []
        header = ["", "loss", "accuracy", *of_validations, "seconds"]
        return table(title, header, rows, curve("Loss", self.losses))


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """An evaluation has means over all samples, by their weights where they have some.

    accuracy: the share of samples whose class, or whose labels all, are predicted; None of numbers.
    metrics: those that were asked for, by name: numbers, arrays, or dicts of them.
    """

    loss: float
    accuracy: float | None
    num_samples: int
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        numbers = {name: value for name, value in self.metrics.items() if isinstance(value, float)}
        row = [f"{self.num_samples:,} samples", self.loss, share_text(self.accuracy), *numbers.values()]
        return table("Evaluation", ["", "loss", "accuracy", *numbers], [row])


def fit_result(
    steps: Array,
    epochs: list[EpochSummary],
    average: Sequential | None,
    watched: list[WatchedStep],
    validations: list[Validated],
    *,
    has_accuracy: bool,
) -> FitResult:
    """Form the result of a call from what its steps came to, of `STEP_RECORD`."""
    seconds = float(steps["seconds"].sum())
    per_second = float(steps["num_samples"].sum() / seconds) if seconds else 0.0
    shares = np.where(np.isnan(steps["loss"]), np.nan, steps["num_correct"] / steps["num_samples"])
    return FitResult(
        epochs=epochs,
        losses=steps["loss"].copy(),
        accuracies=shares if has_accuracy else None,
        step_seconds=steps["seconds"].copy(),
        seconds=seconds,
        samples_per_second=per_second,
        average=average,
        watched=watched,
        validations=validations,
    )

"""What a run is judged by, and for how long it may get no better."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, final

from dist_relu.engine.results import Validated
from dist_relu.engine.watch.records import EpochSummary
from dist_relu.nn import Sequential

MONITORS = ("validation_loss", "validation_accuracy", "loss", "accuracy")
"""The names of what can be monitored: numbers of validations, or of epochs of training."""


@final
class Patience:
    """A count of values that brought nothing better: the rule of early stopping, and nothing else.

    best: the best value so far, None before the first.  num_bad: how many have come since it that are not better by
    more than min_delta. NaN and infinities are never better.
    """

    def __init__(self, patience: int, min_delta: float = 0.0, *, maximise: bool) -> None:
        """maximise: a value is better when it is greater, otherwise when it is smaller."""
        self._patience, self._min_delta, self._maximise = patience, min_delta, maximise
        self.best: float | None = None
        self.num_bad = 0

    @property
    def is_over(self) -> bool:
        """Whether `patience` values in a row were no better."""
        return self.num_bad >= self._patience

    def take(self, value: float) -> bool:
        """Take the next value.  Returns whether it is the best."""
        if self._is_better(value):
            self.best, self.num_bad = value, 0
            return True
        self.num_bad += 1
        return False

    def _is_better(self, value: float) -> bool:
        if not isfinite(value):
            return False
        if self.best is None:
            return True
        return (value - self.best if self._maximise else self.best - value) > self._min_delta

    def state(self) -> dict[str, Any]:
        """Return what `restore` takes."""
        return {"best": self.best, "num_bad": self.num_bad}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Stand where another one stood."""
        self.best, self.num_bad = state["best"], state["num_bad"]


def is_maximised(monitor: str) -> bool:
    """Whether more is better: of accuracies it is, of losses not."""
    return monitor.endswith("accuracy")


def is_of_validation(monitor: str) -> bool:
    """Whether validations have it, otherwise epochs."""
    return monitor.startswith("validation_")


def monitored(monitor: str, record: Validated | EpochSummary) -> float | None:
    """Return what is monitored of a validation or an epoch; None of the other kind of these."""
    if isinstance(record, Validated) != is_of_validation(monitor):
        return None
    value: float | None = record.accuracy if is_maximised(monitor) else record.loss
    return value


def check_monitored(who: str, monitor: str, model: Sequential, *, validates: bool) -> None:
    """Raise ValueError unless a call has what is to be monitored.  who: asks for it.  validates: whether the call."""
    name = f'{who}(monitor="{monitor}")'
    if is_of_validation(monitor) and not validates:
        raise ValueError(
            f'{name} needs validations, and this call has none: pass fit(validation=...), or monitor "loss".'
        )
    if is_maximised(monitor) and model.predicts == "numbers":
        raise ValueError(f"{name}: there is no accuracy without classes; monitor a loss.")

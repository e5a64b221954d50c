"""What a run is judged by, and for how long it may get no better."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import isfinite
from typing import Any, final

from dist_relu.core.checks import shown
from dist_relu.engine.results import Validated
from dist_relu.engine.watch.records import EpochSummary
from dist_relu.metrics.named import is_better_when_greater, is_number
from dist_relu.nn import Sequential

MONITORS = ("validation_loss", "validation_accuracy", "loss", "accuracy")
"""The names of what can be monitored of any run: numbers of validations, or of epochs of training.

Where validations measure more, that can be, too: "validation_f1_macro"."""

_OF_VALIDATION = "validation_"


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


def check_monitor(name: str, value: Any) -> str:
    """A check for `dist_relu.core.checks`: the name of what can be monitored."""
    if not isinstance(value, str):
        raise TypeError(f"{shown(name, value)}: expected text.")
    if value in MONITORS or (value.startswith(_OF_VALIDATION) and is_number(metric_of(value))):
        return value
    known = ", ".join(f'"{monitor}"' for monitor in MONITORS)
    raise ValueError(
        f'{shown(name, value)}: expected {known}, or "validation_" and a metric that is a number, such as '
        '"validation_f1_macro".'
    )


def check_validation_monitor(name: str, value: Any) -> str:
    """A check for `dist_relu.core.checks`: the name of what can be monitored of validations."""
    if is_of_validation(check_monitor(name, value)):
        return str(value)
    raise ValueError(
        f'{shown(name, value)}: expected "validation_loss", "validation_accuracy", or "validation_" and a metric.'
    )


def metric_of(monitor: str) -> str:
    """What is monitored, without the word for validations."""
    return monitor.removeprefix(_OF_VALIDATION)


def is_maximised(monitor: str) -> bool:
    """Whether more is better: of losses and errors it is not."""
    return metric_of(monitor) != "loss" and is_better_when_greater(metric_of(monitor))


def is_of_validation(monitor: str) -> bool:
    """Whether validations have it, otherwise epochs."""
    return monitor.startswith(_OF_VALIDATION)


def monitored(monitor: str, record: Validated | EpochSummary) -> float | None:
    """Return what is monitored of a validation or an epoch; None of the other kind of these."""
    if isinstance(record, Validated) != is_of_validation(monitor):
        return None
    if monitor not in MONITORS and isinstance(record, Validated):
        return record.metrics.get(metric_of(monitor))
    value: float | None = record.accuracy if is_maximised(monitor) else record.loss
    return value


def check_monitored(
    who: str,
    monitor: str,
    model: Sequential,
    *,
    validates: bool,
    metrics: Collection[str] = (),
    argument: str = "monitor",
) -> None:
    """Raise ValueError unless a call has what is to be monitored.

    who: asks for it, by this argument.  validates: whether the call does.  metrics: that its validations measure.
    """
    name = f'{who}({argument}="{monitor}")'
    if is_of_validation(monitor) and not validates:
        raise ValueError(
            f'{name} needs validations, and this call has none: pass fit(validation=...), or monitor "loss".'
        )
    if monitor not in MONITORS:
        if metric_of(monitor) not in metrics:
            raise ValueError(f'{name} needs validations that measure it: pass fit(metrics=["{metric_of(monitor)}"]).')
        return
    if is_maximised(monitor) and model.predicts == "numbers":
        raise ValueError(f"{name}: there is no accuracy without classes; monitor a loss.")

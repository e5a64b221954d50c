"""Where a run would have stopped by another rule than its own, from what it was judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from dist_relu.engine.memory import means_of
from dist_relu.engine.results import Validated
from dist_relu.engine.watch.records import EpochSummary
from dist_relu.run.monitoring import Patience, is_maximised, is_of_validation, monitored
from dist_relu.run.state import RunState


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A run was judged by this value, after so many complete epochs, and steps where they are known."""

    epoch: int
    step: int | None
    value: float


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """A rule would have done this to a run.

    stopped: where it would have stopped it; None if nowhere.  best: what would have been best then.
    best_of_all: over the whole run, whatever the rule says.  best is None where no value is finite.
    num_judged: how many values the run has.
    """

    stopped: Judged | None
    best: Judged | None
    best_of_all: Judged | None
    num_judged: int


def replay(run: Sequence[Judged], monitor: str, patience: int, min_delta: float = 0.0) -> Replayed:
    """Say where `EarlyStopping(monitor, patience, min_delta)` would have stopped a run that went on for longer."""
    maximise = is_maximised(monitor)
    rule = Patience(patience, min_delta, maximise=maximise)
    best = stopped = None
    for judged in run:
        if rule.take(judged.value):
            best = judged
        elif rule.is_over:
            stopped = judged
            break
    finite = [judged for judged in run if isfinite(judged.value)]
    choose = max if maximise else min
    of_all = choose(finite, key=lambda judged: judged.value, default=None)
    return Replayed(stopped=stopped, best=best, best_of_all=of_all, num_judged=len(run))


def judged_by(monitor: str, validations: Sequence[Validated], epochs: Sequence[EpochSummary]) -> list[Judged]:
    """List what is monitored of a run.  validations, epochs: in their order."""
    places: list[tuple[int, int | None, float | None]]
    if is_of_validation(monitor):
        places = [(validated.epoch, validated.step, monitored(monitor, validated)) for validated in validations]
    else:
        places = [(summary.epoch + 1, None, monitored(monitor, summary)) for summary in epochs]
    return [Judged(epoch=epoch, step=step, value=value) for epoch, step, value in places if value is not None]


def epochs_of(state: RunState) -> list[EpochSummary]:
    """Sum up the complete epochs of a run, as they were told of while it went on."""
    size = state.steps_per_epoch
    has_classes = bool(state.records["num_correct"].any())
    found = []
    for epoch in range(state.epoch):
        steps = state.records[epoch * size : (epoch + 1) * size]
        loss, accuracy = means_of(steps)
        found.append(
            EpochSummary(
                epoch=epoch,
                loss=loss,
                accuracy=accuracy if has_classes else None,
                seconds=float(steps["seconds"].sum()),
            )
        )
    return found

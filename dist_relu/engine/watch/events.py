"""What worker 0 reports while workers train, and the coordinator hears of.  P parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dist_relu.core.arrays import Array


@dataclass(frozen=True, kw_only=True)
class Progress:
    """This tells how far training is.  loss and accuracy: means over the samples of this epoch so far."""

    epoch: int
    step: int
    num_steps: int
    loss: float
    accuracy: float
    samples_per_second: float


@dataclass(frozen=True, kw_only=True)
class StepDone:
    """A watched step is over.  loss: the mean over its samples.  rows: (shards,), see `recorder.row_dtype`.

    norms: (3, P), see `Norms.of_watched_step`.
    """

    step: int
    loss: float
    num_correct: int
    num_samples: int
    seconds: float
    rows: Array
    norms: Array


@dataclass(frozen=True, kw_only=True)
class StepsDone:
    """Watched steps are over, which travel together, since each alone would cost a small model's step much."""

    steps: Sequence[StepDone]


@dataclass(frozen=True, kw_only=True)
class EpochDone:
    """An epoch is over.  steps: all of them, watched or not, (steps,) of `STEP_RECORD`.

    progress: at its end.
    active: for each unit of all passes whether it was not 0 for some sample, (units,); None in a run without a watch.
    Where an epoch was interrupted, it tells of what came behind that.
    """

    progress: Progress
    active: Array | None
    steps: Array


Event = Progress | StepsDone | EpochDone

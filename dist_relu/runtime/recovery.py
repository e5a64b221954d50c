"""What is done when a worker is lost, how often, and what was done."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Literal, final, get_args

from dist_relu.core.checks import check_choice, check_int
from dist_relu.errors import WorkerLost

OnFailure = Literal["replace", "shrink", "stop"]

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 10.0


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """Workers were lost, and the others went on.

    loss: who was lost and how.  time: when that was noticed, in seconds since 1970.  seconds: until the group was whole
    again.  step: which step was to be done again, None outside of training.  workers: how many there were before, and
    how many are there since.
    """

    loss: str
    time: float
    seconds: float
    step: int | None
    workers: tuple[int, int]

    def __str__(self) -> str:
        before, now = self.workers
        what = f"{now} workers again" if now == before else f"{now} workers instead of {before}"
        where = "" if self.step is None else f" Training goes on with step {self.step:,}."
        return f"{self.loss} After {self.seconds:.1f} s there are {what}.{where}"


@final
class FailurePolicy:
    """A failure policy decides what is done when a worker is lost.

    on_failure: "replace": another one starts in its place; where none can be had, it is "shrink": the others do its
    work; "stop": the loss is raised.  max_restarts: how often in a row without a complete step in between.
    least: with fewer workers the loss is raised.  most: so many are to be there again as soon as there is room.
    """

    def __init__(
        self, on_failure: OnFailure = "replace", max_restarts: int = 5, *, least: int = 1, most: int = 1
    ) -> None:
        """Raises TypeError and ValueError for arguments that make no sense."""
        self.on_failure = check_choice("on_failure", on_failure, get_args(OnFailure))
        self.max_restarts = check_int("max_restarts", max_restarts, 0)
        self.least, self.most = least, most
        self._in_a_row = 0

    def check(self, loss: WorkerLost) -> None:
        """Raise the loss if nothing is to be done about it, and pause before another try."""
        if self.on_failure == "stop":
            raise loss
        if self._in_a_row >= self.max_restarts:
            if self.max_restarts:
                loss.add_note(f"Workers were replaced {self._in_a_row} times in a row, and no step was done since.")
            raise loss
        if self._in_a_row:
            time.sleep(min(_FIRST_PAUSE_S * 2 ** (self._in_a_row - 1), _LONGEST_PAUSE_S))
        self._in_a_row += 1

    def at_least(self, workers: int, loss: WorkerLost) -> int:
        """Return this number of workers.  Raises the loss where they are too few."""
        if workers >= self.least:
            if self.on_failure == "shrink":
                self.most = workers
            return workers
        loss.add_note(f"There could be {workers} workers now, and {self.least} are needed.")
        raise loss

    def note_progress(self) -> None:
        """Note that something was done since the last loss."""
        self._in_a_row = 0


def parse_workers(workers: int | str | None) -> tuple[int | None, int | None]:
    """Read how many workers there are to be at least and at most: "2:8", or 4; None for as many as fit.

    Raises TypeError and ValueError for what is none of these.
    """
    if not isinstance(workers, str):
        return workers, workers  # which the backend checks
    found = re.fullmatch(r"(\d{1,9}):(\d{1,9})", workers)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(
            f"workers={workers!r}: expected a number from 1 on, or two such as 2:8, the smaller one first."
        )
    return int(found[1]), int(found[2])

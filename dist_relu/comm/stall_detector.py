"""How workers notice that they wait for one that does not come, and say for whom, and where that one is.

Nobody is ended for it: a worker may well have much to do. Who died or was stopped is noticed elsewhere.
"""

from __future__ import annotations

import socket
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from dist_relu.comm import whereabouts
from dist_relu.comm.stacks import stack_of
from dist_relu.comm.whereabouts import Place
from dist_relu.core.arrays import Array

SLOW_AFTER_S = 30.0
"""How long a worker waits, by default, before it says so."""

_TOLD = 1
"""The word in the control memory's first line, that to abort, with the last meeting of which somebody has told."""


@dataclass(frozen=True, kw_only=True)
class Stalled:
    """An event of a call: workers have waited long for others.  text: what to tell the user, in several lines."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """An event of a call: those who were waited for have come.  text: a line for the user."""

    text: str


@final
class StallDetector:
    """Notices that a worker waits in the barrier of its node, or for other nodes, for longer than `slow_after_s`.

    control: of the node, see `NodeBarrier`.  rank: of this worker on its node, whose first one is number `first` of
    all.  pids: of the node's workers.  tell: takes `Stalled`, once for each wait, from the first of those who wait, and
    then `Resumed`.
    """

    def __init__(
        self,
        control: Array,
        rank: int,
        first: int,
        pids: Sequence[int],
        tell: Callable[[Stalled | Resumed], object],
        slow_after_s: float = SLOW_AFTER_S,
    ) -> None:
        self._control, self._rank, self._first, self._pids = control, rank, first, pids
        self._tell = tell
        self._slow_after_s = slow_after_s
        self._whereabouts = whereabouts.Whereabouts(control, rank)
        self._meeting, self._meeting_abroad = 0, -1  # none so far
        self._began_s = self._began_abroad_s = 0.0
        self._awaited = self._awaited_abroad = ""  # of whom we have told

    def check(self, meeting: int, task: int) -> None:
        """Look who is missing at a meeting, see `Place.meetings`, of this task; to be called while that lasts."""
        now = time.monotonic()
        if meeting != self._meeting:
            self._meeting, self._began_s, self._awaited = meeting, now, ""
        if self._awaited or now - self._began_s < self._slow_after_s or self._control[_TOLD] >= meeting:
            return
        places = [whereabouts.read(self._control, rank) for rank in range(len(self._pids))]
        waiting = [rank for rank, place in enumerate(places) if place.meetings >= meeting]
        missing = {
            rank: place for rank, place in enumerate(places) if place.meetings < meeting and not place.waits_for_nodes
        }
        if missing and self._rank == waiting[0]:
            self._control[_TOLD] = meeting
            self._awaited = " and ".join(self._name(rank) for rank in missing)
            told = [self._told_of(rank, place, waiting, task) for rank, place in missing.items()]
            self._tell(Stalled(text="\n".join(told)))

    def passed(self) -> None:
        """Note that the meeting has taken place."""
        if self._awaited:
            self._tell_of_end(self._awaited, self._began_s)
            self._awaited = ""

    def check_other_nodes(self) -> None:
        """Look how long this worker has waited for those of other nodes; to be called while that lasts."""
        now = time.monotonic()
        place = whereabouts.read(self._control, self._rank)
        if place.meetings != self._meeting_abroad:
            if self._awaited_abroad:
                self._tell_of_end(self._awaited_abroad, self._began_abroad_s)
            self._meeting_abroad, self._began_abroad_s, self._awaited_abroad = place.meetings, now, ""
            self._whereabouts.wait_for_nodes(place.meetings)
        elif not self._awaited_abroad and now - self._began_abroad_s >= self._slow_after_s:
            self._awaited_abroad = "the workers of other nodes"
            waited_s = now - self._began_abroad_s
            text = f"W{self._name(self._rank)[1:]} waits for the workers of other nodes for {waited_s:.0f} s, {place}."
            self._tell(Stalled(text=text))

    def _told_of(self, rank: int, place: Place, waiting: Sequence[int], task: int) -> str:
        """Tell of a worker that is missing."""
        numbers = ", ".join(str(self._first + other) for other in waiting)
        why = f"Worker {numbers} waits for it." if len(waiting) == 1 else f"Workers {numbers} wait for it."
        if place.task < task:
            why = f"It has not begun with this call yet. {why}"
        elif place.phase == whereabouts.IDLE:
            why = f"It has done its part of this call, and never came to the barrier where others are. {why}"
        return told_of(self._name(rank), self._pids[rank], place, time.monotonic() - self._began_s, why)

    def _tell_of_end(self, awaited: str, began_s: float) -> None:
        self._tell(Resumed(text=f"The wait for {awaited} is over, after {time.monotonic() - began_s:.0f} s."))

    def _name(self, rank: int) -> str:
        return f"worker {self._first + rank} (host {socket.gethostname()}, pid {self._pids[rank]})"


def told_of(name: str, pid: int, place: Place, waited_s: float, why: str) -> str:
    """Tell of a worker of this node that is waited for: where it is, why that matters, and its stack."""
    since_s = time.monotonic() - place.since_ns / 1e9
    began = "that" if place.step is None else "the step"
    stack = textwrap.indent(stack_of(pid, *place.stack), "  ")
    return (
        f"Waiting for {name} for {waited_s:.0f} s: it is {place}, {since_s:.0f} s after {began} began. {why} Its stack "
        f"in Python:\n{stack}"
    )

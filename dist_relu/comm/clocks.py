"""The clocks of nodes are compared by messages that go to and fro, as NTP does.

Worker 0 answers what the first workers of other nodes ask it with the time of its clock. That is taken some time
between question and answer, so half of the way to and fro is the most by which the comparison can be wrong; the
quickest of several questions is kept. Processes of a node have one clock, that of `time.monotonic_ns`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic_ns
from typing import final

import numpy as np

from dist_relu.comm.channel import MAX_TAG, ProgressEngine
from dist_relu.core.arrays import Array

_TAG = MAX_TAG - 3
_NUM_QUESTIONS = 8
_NUM_OFFERS = 1000
"""Who pauses between two looks is late to see an answer."""


@dataclass(frozen=True)
class ClockReading:
    """At `at_ns` of its own clock a node was so far ahead of that of worker 0, give or take `error_ns`."""

    at_ns: int
    ahead_ns: int
    error_ns: int


@final
class ClockComparison:
    """Compares the clocks of nodes, from their first workers.

    others: the first workers of all nodes but the first, of which this is one, or this is worker 0.
    """

    def __init__(self, progress_engine: ProgressEngine, rank: int, others: Sequence[int]) -> None:
        self._engine, self._rank, self._others = progress_engine, rank, others
        self._under_way = 0
        self._answered_ns = 0

    def read(self) -> ClockReading:
        """Compare this node's clock with that of worker 0; collective among these workers."""
        if self._rank == 0:
            self._answer()
            return ClockReading(monotonic_ns(), 0, 0)
        return min((self._ask() for _ in range(_NUM_QUESTIONS)), key=lambda reading: reading.error_ns)

    def _answer(self) -> None:
        """Answer all questions."""
        with self._engine.lock:
            self._under_way = 2 * _NUM_QUESTIONS * len(self._others)
            for rank in self._others:
                for question, answer in zip(*np.zeros((2, _NUM_QUESTIONS, 1), np.int64), strict=True):
                    self._engine.receive(question, rank, _TAG, partial(self._asked, rank, answer))
        self._engine.wait_until(lambda: not self._under_way, num_offers=_NUM_OFFERS)

    def _asked(self, rank: int, answer: Array) -> None:
        answer[0] = monotonic_ns()
        self._engine.send(answer, rank, _TAG, self._through)
        self._through()

    def _ask(self) -> ClockReading:
        answer = np.zeros(1, np.int64)
        with self._engine.lock:
            self._under_way = 2
            self._engine.receive(answer, 0, _TAG, self._answered)
            asked_ns = monotonic_ns()
            self._engine.send(np.zeros(1, np.int64), 0, _TAG, self._through)
        self._engine.wait_until(lambda: not self._under_way, num_offers=_NUM_OFFERS)
        on_way_ns = self._answered_ns - asked_ns
        middle_ns = asked_ns + on_way_ns // 2
        return ClockReading(middle_ns, middle_ns - int(answer[0]), on_way_ns - on_way_ns // 2)

    def _answered(self) -> None:
        self._answered_ns = monotonic_ns()
        self._through()

    def _through(self) -> None:
        self._under_way -= 1

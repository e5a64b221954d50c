"""Workers trace the steps of a segment: marks are taken as the steps go, and go to the coordinator with the reply.

How much is marked is decided by what it costs, by each worker for itself: the layers of every pass, or only whole
passes, or only whole steps. The first segment has few steps, with all marks; it tells how many there are and how long
a step takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from time import monotonic_ns, perf_counter_ns
from typing import Self, final

import numpy as np

from dist_relu.comm.clocks import ClockComparison, ClockReading
from dist_relu.comm.marks import ADD, BACKWARD, BETWEEN, FORWARD, GATHER, LOSS, Marks, Phases
from dist_relu.core.arrays import Array
from dist_relu.kernels.ahead import calls_of
from dist_relu.kernels.tape import Tape, play
from dist_relu.nn.passes import PassMarks
from dist_relu.runtime.compiling import compile_ahead
from dist_relu.runtime.world import World

STEPS, PASSES, LAYERS = range(3)
"""How much is marked: whole steps, or passes over shards, or layers, too."""

_MAX_COST, _MAX_COST_OF_TIMING = 0.006, 0.002
"""The shares of a step that its marks may take, and to ask how long the thread was on a processor."""

_MARKS_PER_PASS = 5
"""Gathering, forward, loss, backward, adding up."""
_NUM_TRIALS = 1000
_NUM_JUDGED = 16
"""Steps that are not played by then never are."""
_IN_PYTHON = 10
"""So many times as long a mark takes that Python takes."""


@dataclass(frozen=True, kw_only=True)
class TraceRequest:
    """A segment is to be traced.

    capacity: so many marks there may be.  compares_clocks: whether nodes do that, before the first step and behind the
    last one.
    """

    capacity: int
    compares_clocks: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class WorkerTrace:
    """What a worker has marked in a segment, by its own clock.

    marks, messages: of `MARK` and `MESSAGE`; None where there was too little room.  detail: one of those above.
    readings: of the clock of its node, from the node's first worker.  began_ns, ended_ns: of the segment here.
    cost_ns: what its marks have cost.
    """

    marks: Array | None
    messages: Array
    detail: int
    readings: Sequence[ClockReading]
    began_ns: int
    ended_ns: int
    cost_ns: float


@final
class Tracer:
    """A tracer traces the segments of one worker that are to be.

    For each of them `tracing`, and in it `take` behind the steps.  marks: are to be taken of these.  detail: how many.
    """

    marks: Marks | None = None

    def __init__(self, world: World) -> None:
        self._world = world
        self.detail = LAYERS
        self._kept: Marks | None = None
        self._costs = _Costs()
        self._timed_every = 1
        self._decided = False
        self._readings: list[ClockReading] = []
        self._compares_clocks = False
        engine, leaders = world.progress_engine, [ranks.start for ranks in world.nodes[1:]]
        self._comparison = ClockComparison(engine, world.rank, leaders) if engine and not world.node.rank else None

    @contextmanager
    def tracing(self, request: TraceRequest | None) -> Iterator[None]:
        """Trace a segment.  request: None for one that is not.  Collective."""
        self._begin(request)
        try:
            yield
        finally:
            self._world.node.barrier.marks = None

    def _begin(self, request: TraceRequest | None) -> None:
        self.marks, self._readings = None, []
        if request is None:
            return
        self._began_ns = monotonic_ns()
        if self._kept is None or self._kept.capacity < request.capacity:
            self._kept = Marks(request.capacity)
            self._costs = self._costs if self._costs.mark_ns else _Costs.measured()
        self._compares_clocks = request.compares_clocks
        self._compare_clocks()
        self._kept.begin(self._timed_every)
        self.marks = self._world.node.barrier.marks = self._kept

    def take(self, *, is_played: bool) -> WorkerTrace | None:
        """Take what was marked in a segment; None if it was not traced.  is_played: whether steps are.  Collective."""
        if self.marks is None:
            return None
        self._world.node.barrier.marks = None
        self.marks.enter(BETWEEN)  # where the last phase ends
        taken = self.marks.take()
        self._compare_clocks()
        trace = WorkerTrace(
            marks=taken and taken[0],
            messages=taken[1] if taken else np.empty(0),
            detail=self.detail,
            readings=self._readings,
            began_ns=self._began_ns,
            ended_ns=monotonic_ns(),
            cost_ns=self._costs.of(Phases(taken[0])) if taken else 0.0,
        )
        if taken and not self._decided:
            phases = Phases(taken[0])
            if is_played or len(phases.first_of_steps) >= _NUM_JUDGED:
                self._decide(phases, is_played=is_played)
        return trace

    def _decide(self, phases: Phases, *, is_played: bool) -> None:
        """Choose how much to mark from now on, by the last steps of a segment with all marks."""
        first_of_steps = phases.first_of_steps[len(phases.first_of_steps) // 2 :]
        if len(first_of_steps) < 2:
            return
        self._decided = True
        step_ns = float(np.median(np.diff(phases.begins[first_of_steps])))
        self._timed_every = ceil(2 * self._costs.busy_ns / (_MAX_COST_OF_TIMING * step_ns))
        per_step = np.diff(first_of_steps).max()
        kinds = phases.phases[first_of_steps[-2] : first_of_steps[-1]]
        without_passes = int(per_step - np.isin(kinds, (GATHER, FORWARD, LOSS, BACKWARD, ADD)).sum())
        num_marks = {LAYERS: per_step, PASSES: without_passes + _MARKS_PER_PASS * int((kinds == GATHER).sum())}
        cost_ns = self._costs.mark_ns if is_played else _IN_PYTHON * self._costs.mark_ns
        cheap = (detail for detail, number in num_marks.items() if number * cost_ns <= _MAX_COST * step_ns)
        self.detail = next(cheap, STEPS)

    def _compare_clocks(self) -> None:
        if self._comparison and self._compares_clocks:
            self._readings.append(self._comparison.read())


@final
class MarksOfShard(PassMarks):
    """Marks what a pass over one shard is at.  with_layers: each of them, and not only the whole way."""

    def __init__(self, marks: Marks, shard: int, *, with_layers: bool) -> None:
        self._marks, self._shard, self._with_layers = marks, shard, with_layers
        self._goes_backward = False

    def forward(self, layer: int) -> None:
        if self._with_layers or layer == 0:
            self._marks.enter(FORWARD, layer, self._shard)

    def loss(self) -> None:
        self._marks.enter(LOSS, 0, self._shard)

    def backward(self, layer: int) -> None:
        if self._with_layers or not self._goes_backward:
            self._marks.enter(BACKWARD, layer, self._shard)
        self._goes_backward = True


@dataclass(frozen=True)
class _Costs:
    """What a mark costs that is played, and one for which the system is asked about the thread."""

    mark_ns: float = 0.0
    busy_ns: float = 0.0

    @classmethod
    def measured(cls) -> Self:
        marks = Marks(2 * _NUM_TRIALS)

        def take_each() -> None:
            marks.resume()
            marks.begin_step()
            marks.note_busy()

        compile_ahead(calls_of(take_each))
        mark_ns = _time_ns(marks, marks.resume)
        return cls(mark_ns, max(_time_ns(marks, marks.begin_step) - mark_ns, 0.0))

    def of(self, phases: Phases) -> float:
        """Tell what marks have cost that were played."""
        return len(phases.begins) * self.mark_ns + 2 * len(phases.busy_ns) * self.busy_ns


def _time_ns(marks: Marks, take: Callable[[], object]) -> float:
    tape = Tape()
    marks.begin()
    with tape.recording():
        for _ in range(_NUM_TRIALS):
            take()
    times = []
    for _ in range(3):
        marks.begin()
        began_ns = perf_counter_ns()
        play([tape])
        times.append(perf_counter_ns() - began_ns)
    return min(times) / _NUM_TRIALS

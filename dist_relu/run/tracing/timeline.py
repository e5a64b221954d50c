"""All workers on one clock: that of the node of worker 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np

from dist_relu.comm.clocks import ClockReading
from dist_relu.comm.marks import EXCHANGE, NUM_PHASES, WAIT, Phases
from dist_relu.core.arrays import Array
from dist_relu.run.tracing.log import Segment

_WORSE = 2
"""So many times as wrong as the best comparison of two clocks others may be."""


@final
class Clocks:
    """Clocks brings what nodes have noted by their own clocks to that of worker 0.

    Comparisons of messages that were long under way are left out.
    num_readings, error_ns: of those that count, and by how much one of them was wrong at most; 0 where there is one
    clock.
    """

    def __init__(self, segments: Sequence[Segment]) -> None:
        readings: dict[str, list[ClockReading]] = {}
        for segment in segments:
            for ranks in segment.nodes[1:]:
                node = segment.peers[ranks.start].node
                readings.setdefault(node, []).extend(segment.workers[ranks.start].readings)
        good = {node: _good(found) for node, found in readings.items() if found}
        self._readings = {
            node: np.array([(one.at_ns, one.ahead_ns) for one in found]).T for node, found in good.items()
        }
        errors = [one.error_ns for found in good.values() for one in found]
        self.num_readings = len(errors)
        self.error_ns = max(errors, default=0)

    def common(self, node: str, times_ns: Array) -> Array:
        """Bring times of a node to the common clock, between comparisons in a straight line."""
        if node not in self._readings:
            return times_ns
        at_ns, ahead_ns = self._readings[node]
        origin = int(ahead_ns[0])  # floats have no room for the nanoseconds of years
        ahead = np.interp((times_ns - at_ns[0]).astype(float), (at_ns - at_ns[0]).astype(float), ahead_ns - origin)
        common: Array = times_ns - origin - np.rint(ahead).astype(np.int64)
        return common


def _good(readings: Sequence[ClockReading]) -> list[ClockReading]:
    """Choose those that are hardly worse than the best one."""
    least = min(one.error_ns for one in readings)
    return [one for one in readings if one.error_ns <= _WORSE * least]


@final
class Track:
    """What a worker did in a segment, one phase after another.

    rank: the worker's.  phases: see `Phases`; steps are counted from 0 there.  begins, ends: of each, on the common
    clock.
    """

    def __init__(self, segment: Segment, rank: int, clocks: Clocks) -> None:
        marks = segment.workers[rank].marks
        assert marks is not None
        self.rank = rank
        self.phases = phases = Phases(marks)
        times = clocks.common(segment.peers[rank].node, phases.begins)
        self.begins, self.ends = times, np.append(times[1:], times[-1:])
        self.steps: Array = np.maximum(phases.steps - 1, 0)

    @cached_property
    def waits(self) -> Array:
        """The places of waits for workers of the node."""
        return np.flatnonzero(self.phases.phases == WAIT)

    @cached_property
    def exchanges(self) -> Array:
        """The places of waits for other nodes."""
        return np.flatnonzero(self.phases.phases == EXCHANGE)

    def by_step(self, num_steps: int) -> Array:
        """How long each step was in each phase, (steps, NUM_PHASES), in ns."""
        table = np.zeros((num_steps, NUM_PHASES), np.int64)
        np.add.at(table, (np.minimum(self.steps, num_steps - 1), self.phases.phases), self.ends - self.begins)
        return table


@dataclass(frozen=True, eq=False)
class Messages:
    """What a worker has received in a segment, in the order of arrival, on the common clock.

    senders, sent, arrived, sizes_bytes: (m,); sent is when the sender handed it over.
    """

    senders: Array
    sent: Array
    arrived: Array
    sizes_bytes: Array


@final
class Timeline:
    """A segment, on the common clock.  tracks, messages: by rank."""

    def __init__(self, segment: Segment, clocks: Clocks) -> None:
        self.segment = segment
        self.num_steps = segment.stop - segment.first
        self.tracks = [Track(segment, rank, clocks) for rank in range(len(segment.workers))]
        self.messages = _matched(segment, clocks)

    @cached_property
    def last_arrivals(self) -> list[Array]:
        """For each node, which of its ranks was the last at each of its meetings, (meetings,)."""
        last = []
        for ranks in self.segment.nodes:
            num_meetings = min(len(self.tracks[rank].waits) for rank in ranks)
            arrivals = [self.tracks[rank].begins[self.tracks[rank].waits[:num_meetings]] for rank in ranks]
            last.append(ranks.start + np.argmax(arrivals, axis=0))
        return last

    def node_of(self, rank: int) -> int:
        """Return the number of a worker's node."""
        return next(number for number, ranks in enumerate(self.segment.nodes) if rank in ranks)


def _matched(segment: Segment, clocks: Clocks) -> list[Messages]:
    """Find when each message was sent: those from one worker to another with one tag arrive in their order."""
    sent: dict[tuple[int, int, int], list[int]] = {}
    times = []
    for rank, worker in enumerate(segment.workers):
        noted = worker.messages
        common = clocks.common(segment.peers[rank].node, noted["ns"]) if len(noted) else np.empty(0, np.int64)
        times.append(common)
        for message, at in zip(noted, common.tolist(), strict=True):
            if message["is_sent"]:
                sent.setdefault((rank, int(message["rank"]), int(message["tag"])), []).append(at)
    matched = []
    for rank, worker in enumerate(segment.workers):
        found = []
        counts: dict[tuple[int, int, int], int] = {}
        for message, at in zip(worker.messages, times[rank].tolist(), strict=True):
            if not message["is_sent"]:
                key = int(message["rank"]), rank, int(message["tag"])
                number = counts[key] = counts.get(key, -1) + 1
                if number < len(sent.get(key, ())):
                    found.append((key[0], min(sent[key][number], at), at, int(message["size_bytes"])))
        columns = np.array(found, np.int64).reshape(-1, 4).T
        matched.append(Messages(*columns))
    return matched


def coordinator_ahead(segments: Sequence[Segment]) -> tuple[int, int]:
    """Tell by how much the coordinator's clock is ahead of the common one, and by how much that may be wrong, in ns.

    Where it has a worker beside it, it has that one's clock. Otherwise it has sent the call before worker 0 began with
    it, and got the reply after worker 0 was through.
    """
    first = segments[0]
    number = first.coordinator_node
    if number == 0:
        return 0, 0
    if number is not None:
        readings = first.workers[first.nodes[number].start].readings
        return (readings[0].ahead_ns, readings[0].error_ns) if readings else (0, 0)
    least = max(one.began_ns - one.workers[0].began_ns for one in segments)
    most = min(one.ended_ns - one.workers[0].ended_ns for one in segments)
    return (least + most) // 2, abs(most - least) // 2

"""Who waits for whom, and why; and the chain of work and waits that decides how long steps take."""

from __future__ import annotations

from typing import final

import numpy as np

from dist_relu.comm.marks import EXCHANGE, NUM_PHASES, WAIT
from dist_relu.core.arrays import Array
from dist_relu.run.tracing.timeline import Timeline, Track

_LONGEST_CHAIN = 100
"""Messages, of which each was sent when the one before it had come."""


@final
class Waits:
    """What the workers of some segments have waited for; times are sums, in ns.

    waits: (workers, workers), how long each has waited for each.  network: (workers,), how long for messages that were
    under way.  under_way: (workers,), how long messages to each were under way.  hidden: (workers,), how long of that
    it did something else.
    """

    def __init__(self, num_workers: int) -> None:
        self.waits = np.zeros((num_workers, num_workers), np.int64)
        self.network, self.under_way, self.hidden = np.zeros((3, num_workers), np.int64)

    def add(self, timeline: Timeline) -> None:
        """Add what a segment tells."""
        for ranks, last in zip(timeline.segment.nodes, timeline.last_arrivals, strict=True):
            for rank in ranks:
                self._add_meetings(timeline, rank, last)
        for track in timeline.tracks:
            self._add_exchanges(timeline, track)
            self._add_messages(timeline, track)

    def _add_meetings(self, timeline: Timeline, rank: int, last: Array) -> None:
        """Add how long a worker has waited for others of its node; what these waited for messages counts as such."""
        track = timeline.tracks[rank]
        begins = track.begins[track.waits[: len(last)]]
        for late in np.unique(last[last != rank]).tolist():
            other, chosen = timeline.tracks[late], last == late
            arrivals = other.begins[other.waits[: len(last)]][chosen]
            waited = np.maximum(arrivals - begins[chosen], 0)
            abroad = _overlap(other, begins[chosen], arrivals)
            self.waits[rank, late] += int((waited - abroad).sum())
            self.network[rank] += int(abroad.sum())

    def _add_exchanges(self, timeline: Timeline, track: Track) -> None:
        """Add how long a worker has waited for other nodes: until the last of them had sent, and from then on."""
        for place in track.exchanges.tolist():
            begin, end = int(track.begins[place]), int(track.ends[place])
            late, sent = origin_of(timeline, track.rank, begin, end)
            share = max(min(sent, end) - begin, 0) if late != track.rank else 0
            self.waits[track.rank, late] += share
            self.network[track.rank] += end - begin - share

    def _add_messages(self, timeline: Timeline, track: Track) -> None:
        messages = timeline.messages[track.rank]
        if len(messages.sent):
            begins, ends = _merged(messages.sent, messages.arrived)
            under_way = int((ends - begins).sum())
            covered = _covered(begins, ends, track.begins[track.exchanges], track.ends[track.exchanges])
            self.under_way[track.rank] += under_way
            self.hidden[track.rank] += under_way - covered


def critical_path(timeline: Timeline, num_workers: int) -> Array:
    """Find the chain of work and waits that ends with the last step: what of it takes less time makes all take less.

    Returns how long it goes through each phase of each worker, (workers, NUM_PHASES), in ns. It is found backwards:
    along a worker's work, and at a wait over to whom it has waited for.
    """
    phases = np.zeros((num_workers, NUM_PHASES), np.int64)
    tracks = timeline.tracks
    sums = [_sums_of(track) for track in tracks]
    stops = [np.sort(np.concatenate([track.waits, track.exchanges])) for track in tracks]
    rank = max(range(len(tracks)), key=lambda number: int(tracks[number].ends[-1]))
    now = int(tracks[rank].ends[-1])
    for _ in range(sum(map(len, stops)) + 1):
        track = tracks[rank]
        before = int(np.searchsorted(track.ends[stops[rank]], now, "right")) - 1
        place = int(stops[rank][before]) if before >= 0 else -1
        since = int(track.ends[place]) if place >= 0 else int(track.begins[0])
        phases[rank] += _between(track, sums[rank], since, now)
        if place < 0 or since <= int(track.begins[0]):
            break
        begin = int(track.begins[place])
        if track.phases.phases[place] == WAIT:
            node = timeline.node_of(rank)
            number = int(np.searchsorted(track.waits, place))
            last = timeline.last_arrivals[node]
            cause = int(last[number]) if number < len(last) else rank
            other = tracks[cause]
            arrival = int(other.begins[other.waits[number]])
            at, kind = min(arrival, since), WAIT
        else:
            (cause, at), kind = origin_of(timeline, rank, begin, since), EXCHANGE
        phases[rank, kind] += max(since - at, 0)
        rank, now = cause, min(at, since - 1)
    return phases


def origin_of(timeline: Timeline, rank: int, begin: int, end: int) -> tuple[int, int]:
    """Find for whom a wait for other nodes was: the worker who was not waiting itself, and when it had sent.

    That is who has sent the message that came last; where it has waited for one then, who has sent that, and so on.
    """
    for _ in range(_LONGEST_CHAIN):
        messages = timeline.messages[rank]
        number = int(np.searchsorted(messages.arrived, end, "right")) - 1
        if number < 0 or messages.arrived[number] < begin:
            return rank, begin  # what it has waited for was to be sent
        rank, end = int(messages.senders[number]), int(messages.sent[number])
        track = timeline.tracks[rank]
        place = int(np.searchsorted(track.begins[track.exchanges], end, "right")) - 1
        if place < 0 or track.ends[track.exchanges[place]] <= end:
            return rank, end
        begin = int(track.begins[track.exchanges[place]])
    return rank, end


def _overlap(track: Track, begins: Array, ends: Array) -> Array:
    """Tell how long within each of these spans a worker has waited for other nodes."""
    if not len(track.exchanges):
        return np.zeros(len(begins), np.int64)
    inside = _Coverage(track.begins[track.exchanges], track.ends[track.exchanges])
    lengths: Array = np.rint(inside(ends) - inside(begins)).astype(np.int64).clip(0)
    return lengths


class _Coverage:
    """How much of the time before a moment lies in spans that don't overlap."""

    def __init__(self, begins: Array, ends: Array) -> None:
        self._origin = int(begins[0])
        bounds = np.stack([begins, ends], axis=1).reshape(-1) - self._origin
        lengths = np.stack([np.zeros_like(begins), ends - begins], axis=1).reshape(-1)
        self._bounds, self._sums = bounds.astype(float), np.cumsum(lengths).astype(float)

    def __call__(self, times: Array) -> Array:
        before: Array = np.interp((times - self._origin).astype(float), self._bounds, self._sums)
        return before


def _covered(begins: Array, ends: Array, others: Array, ends_of_others: Array) -> int:
    """Tell how long spans of two kinds are there at once; those of a kind don't overlap."""
    inside = _Coverage(begins, ends)
    return round(float((inside(ends_of_others) - inside(others)).sum()))


def _merged(begins: Array, ends: Array) -> tuple[Array, Array]:
    """Merge spans that overlap."""
    order = np.argsort(begins, kind="stable")
    begins, ends = begins[order], np.maximum.accumulate(ends[order])
    is_first = np.append(True, begins[1:] > ends[:-1])
    return begins[is_first], ends[np.append(np.flatnonzero(is_first)[1:] - 1, len(ends) - 1)]


def _sums_of(track: Track) -> Array:
    """How long each phase has been there before each place, (n + 1, NUM_PHASES)."""
    lengths = np.zeros((len(track.begins) + 1, NUM_PHASES), np.int64)
    lengths[np.arange(1, len(track.begins) + 1), track.phases.phases] = track.ends - track.begins
    return np.cumsum(lengths, axis=0)


def _between(track: Track, sums: Array, begin: int, end: int) -> Array:
    """How long a worker was in each phase in a span of time."""
    return _until(track, sums, end) - _until(track, sums, begin)


def _until(track: Track, sums: Array, time: int) -> Array:
    place = int(np.searchsorted(track.begins, time, "right")) - 1
    if place < 0:
        return np.zeros(NUM_PHASES, np.int64)
    known: Array = sums[place].copy()
    known[track.phases.phases[place]] += min(time, int(track.ends[place])) - int(track.begins[place])
    return known

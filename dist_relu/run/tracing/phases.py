"""What was marked is added up: where the time of traced steps went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dist_relu.comm.marks import BACKWARD, FORWARD, NUM_PHASES
from dist_relu.core.arrays import Array
from dist_relu.engine.tracing import LAYERS
from dist_relu.run.tracing.log import CALLBACKS, VALIDATION, TraceLog
from dist_relu.run.tracing.summary import NAMES, Lateness, Phases, SlowNode, WorkerPhases
from dist_relu.run.tracing.timeline import Clocks, Timeline
from dist_relu.run.tracing.waiting import Waits, critical_path

_MUCH = 1.5
"""So many times as long as others a node's messages must take to be worth a word."""

_Link = frozenset[tuple[int, str]]
"""Two nodes, by number and host."""


def phases_of(log: TraceLog) -> Phases:
    """Add up what a log has, which is some steps at least."""
    segments = [segment for segment in log.segments if not segment.is_first] or log.segments
    clocks = Clocks(log.segments)
    num_workers = max(len(segment.workers) for segment in segments)
    waits = Waits(num_workers)
    table = np.zeros((num_workers, NUM_PHASES), np.int64)
    critical = np.zeros((num_workers, NUM_PHASES), np.int64)
    layers = np.zeros((len(log.layers), 2), np.int64)
    reasons = np.zeros((num_workers, 3))
    mark_costs = np.zeros(num_workers)
    step_ns: list[Array] = []
    links: dict[_Link, list[Array]] = {}
    for segment in segments:
        timeline = Timeline(segment, clocks)
        waits.add(timeline)
        critical += critical_path(timeline, num_workers)
        for track in timeline.tracks:
            worker = segment.workers[track.rank]
            table[track.rank] += track.by_step(timeline.num_steps).sum(axis=0)
            mark_costs[track.rank] += worker.cost_ns
            if worker.detail == LAYERS:
                _add_layers(layers, timeline, track.rank)
        step_ns.append(np.diff(timeline.tracks[0].begins[timeline.tracks[0].phases.first_of_steps]))
        reasons[: len(segment.workers)] += _reasons(timeline)
        _add_links(links, timeline)
    last_of = {rank: segment for segment in segments for rank in range(len(segment.workers))}  # who may have gone since
    times = np.concatenate(step_ns)
    began_ns, ended_ns = segments[0].began_ns, segments[-1].ended_ns
    between = {
        what: sum(
            span.ended_ns - span.began_ns
            for span in log.spans
            if span.what == what and began_ns <= span.began_ns < ended_ns
        )
        for what in (VALIDATION, CALLBACKS)
    }
    totals = table.sum(axis=1)
    under_way = int(waits.under_way.sum())
    return Phases(
        first=segments[0].first,
        last=segments[-1].stop - 1,
        num_steps=sum(segment.stop - segment.first for segment in segments),
        seconds=(ended_ns - began_ns) * 1e-9,
        step_seconds=float(np.median(times)) * 1e-9 if len(times) else float(totals[0]) * 1e-9,
        workers=[
            WorkerPhases(
                rank=rank,
                host=last.peers[rank].host,
                pid=last.peers[rank].pid,
                node=next(number for number, ranks in enumerate(last.nodes) if rank in ranks),
                phases=_named(table[rank]),
                waits_for=(waits.waits[rank] * 1e-9).tolist(),
                network=float(waits.network[rank]) * 1e-9,
                critical=float(critical[rank].sum()) * 1e-9,
                num_samples=last.num_rows[rank],
                lateness=_lateness(reasons[rank]) if num_workers > 1 else None,
                marks_share=float(mark_costs[rank] / max(totals[rank], 1)),
            )
            for rank, last in last_of.items()
        ],
        critical=_named(critical.sum(axis=0)),
        layers={name: (times * 1e-9).tolist() for name, times in zip(log.layers, layers, strict=True) if layers.any()},
        validation=between[VALIDATION] * 1e-9,
        callbacks=max(between[CALLBACKS] - between[VALIDATION], 0) * 1e-9,
        hidden=float(waits.hidden.sum()) / under_way if under_way else None,
        slow_node=_slow_node(links),
        num_nodes=max(len(segment.nodes) for segment in segments),
        num_comparisons=clocks.num_readings,
        clock_error=clocks.error_ns * 1e-9,
    )


def step_table(log: TraceLog) -> Array:
    """How long every worker was in each phase of every step, (steps · workers,), times in seconds."""
    clocks = Clocks(log.segments)
    dtype = np.dtype([("step", np.int64), ("worker", np.int64), *((name, np.float64) for name in NAMES)])
    parts = [np.empty(0, dtype)]
    for segment in log.segments:
        timeline = Timeline(segment, clocks)
        part = np.zeros((timeline.num_steps, len(timeline.tracks)), dtype)
        part["step"] = np.arange(segment.first, segment.stop)[:, None]
        part["worker"] = np.arange(len(timeline.tracks))
        for track in timeline.tracks:
            for name, times in zip(NAMES, track.by_step(timeline.num_steps).T, strict=True):
                part[name][:, track.rank] = times * 1e-9
        parts.append(part.reshape(-1))
    return np.concatenate(parts)


def _named(times_ns: Array) -> dict[str, float]:
    return {name: float(ns) * 1e-9 for name, ns in zip(NAMES, times_ns, strict=True) if ns}


def _lateness(reasons: Array) -> Lateness:
    off_core, more_samples, slower = (reasons * 1e-9).tolist()
    return Lateness(off_core=off_core, more_samples=more_samples, slower=slower)


def _add_layers(layers: Array, timeline: Timeline, rank: int) -> None:
    track = timeline.tracks[rank]
    for way, phase in enumerate((FORWARD, BACKWARD)):
        chosen = track.phases.phases == phase
        np.add.at(layers[:, way], track.phases.numbers[chosen], (track.ends - track.begins)[chosen])


def _reasons(timeline: Timeline) -> Array:
    """Why workers come later to the sum than the mean of the others, (workers, 3) in ns, see `Lateness`."""
    tracks, rows = timeline.tracks, np.array(timeline.segment.num_rows, float)
    reasons = np.zeros((len(tracks), 3))
    if len(tracks) == 1 or not all(len(track.phases.pass_ns) for track in tracks):
        return reasons
    walls = np.array([track.phases.pass_ns.mean() for track in tracks])
    busy = np.minimum([track.phases.busy_ns.mean() for track in tracks], walls)
    for rank in range(len(tracks)):
        others = np.arange(len(tracks)) != rank
        per_row = busy[others].mean() / rows[others].mean()
        off_core = (walls - busy)[rank] - (walls - busy)[others].mean()
        reasons[rank] = off_core, per_row * (rows[rank] - rows[others].mean()), busy[rank] - per_row * rows[rank]
    return timeline.num_steps * reasons


def _add_links(links: dict[_Link, list[Array]], timeline: Timeline) -> None:
    """Note of the messages between every two nodes how large they are, and how long they are under way, (2, m)."""
    nodes = [(timeline.node_of(rank), peer.host) for rank, peer in enumerate(timeline.segment.peers)]
    for receiver, messages in enumerate(timeline.messages):
        noted = np.stack([messages.sizes_bytes, messages.arrived - messages.sent])
        for sender in np.unique(messages.senders).tolist():
            link = frozenset((nodes[receiver], nodes[sender]))
            links.setdefault(link, []).append(noted[:, messages.senders == sender])


def _slow_node(links: Mapping[_Link, Sequence[Array]]) -> SlowNode | None:
    """Find the node whose messages take longest, if they take much longer than those between others.

    Times are multiples of the median of all messages of that size.
    """
    if not links:
        return None
    sizes, times = np.concatenate([part for parts in links.values() for part in parts], axis=1)
    usual = {size: max(float(np.median(times[sizes == size])), 1.0) for size in np.unique(sizes).tolist()}
    relative = {
        link: np.concatenate([times / [usual[size] for size in sizes.tolist()] for sizes, times in parts])
        for link, parts in links.items()
    }
    slowest = None
    for number, host in sorted({node for link in links for node in link}):
        own = [times for link, times in relative.items() if (number, host) in link]
        others = [times for link, times in relative.items() if (number, host) not in link]
        if not others or not (of_others := float(np.median(np.concatenate(others)))):
            continue
        factor = float(np.median(np.concatenate(own))) / of_others
        if factor > (slowest.factor if slowest else _MUCH):
            slowest = SlowNode(number=number, host=host, factor=factor)
    return slowest

"""A trace as a file of Chrome's trace event format, which Perfetto and chrome://tracing open.

Nodes are its processes and workers its threads; phases lie within steps. Times are microseconds from the beginning of
the trace, on the clock of worker 0's node. What the phases come to stands in the file, too, under a name of ours: those
who read traces pass over names that they don't know.
https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dist_relu.comm.marks import BACKWARD, FORWARD
from dist_relu.core.files import write_pieces
from dist_relu.run.tracing.log import TraceLog
from dist_relu.run.tracing.phases import phases_of
from dist_relu.run.tracing.summary import NAMES
from dist_relu.run.tracing.timeline import Clocks, Timeline, Track, coordinator_ahead

KEY, VERSION = "dist_relu", 1
"""Under which name a file has what its phases come to."""

_COORDINATOR = 0
"""The number of its process; node n is number n + 1."""


def write_trace(path: str | Path, log: TraceLog) -> None:
    """Write all that was traced, which is some steps at least.  Raises `WriteError`."""
    head = {KEY: {"version": VERSION, "phases": asdict(phases_of(log))}, "displayTimeUnit": "ms"}
    pieces = [(json.dumps(head, allow_nan=False)[:-1] + ', "traceEvents": [\n').encode()]
    pieces += [",\n".join(part).encode() for part in _with_commas(_parts(log))]
    pieces.append(b"\n]}\n")
    write_pieces(path, pieces)


def phases_in(content: dict[str, Any]) -> Any:
    """What the phases of a file have come to, as plain data.  Raises KeyError for a file of somebody else."""
    return content[KEY]["phases"]


def _with_commas(parts: Iterator[list[str]]) -> Iterator[list[str]]:
    is_first = True
    for part in parts:
        if part:
            yield part if is_first else ["", *part]
            is_first = False


def _parts(log: TraceLog) -> Iterator[list[str]]:
    """Give all events as JSON, a list for each part of the trace."""
    clocks = Clocks(log.segments)
    ahead_ns, _ = coordinator_ahead(log.segments)
    origin = min([log.segments[0].began_ns - ahead_ns, *(span.began_ns - ahead_ns for span in log.spans)])
    yield list(_names(log))
    yield [
        _event(span.what, "coordinator", span.began_ns - ahead_ns - origin, span.ended_ns - span.began_ns, 0, 0)
        for span in log.spans
    ]
    for segment in log.segments:
        timeline = Timeline(segment, clocks)
        for track in timeline.tracks:
            process = 1 + timeline.node_of(track.rank)
            yield list(_steps(track, segment.first, process, origin))
            yield list(_phases(track, segment.first, process, origin, log.layers))
            yield list(_messages(timeline, track.rank, process, origin))


def _names(log: TraceLog) -> Iterator[str]:
    """Name nodes and workers; one in whose place another has come has the names of both."""
    yield _name("process_name", _COORDINATOR, 0, "coordinator")
    hosts: dict[int, dict[str, None]] = {}
    pids: dict[tuple[int, int], dict[str, None]] = {}
    for segment in log.segments:
        for number, ranks in enumerate(segment.nodes):
            hosts.setdefault(number, {})[segment.peers[ranks.start].host] = None
            for rank in ranks:
                pids.setdefault((number, rank), {})[str(segment.peers[rank].pid)] = None
    for number, of_node in hosts.items():
        yield _name("process_name", 1 + number, 0, f"node {number} ({', then '.join(of_node)})")
    for (number, rank), of_worker in pids.items():
        yield _name("thread_name", 1 + number, rank, f"worker {rank} (pid {', then '.join(of_worker)})")


def _name(what: str, process: int, thread: int, name: str) -> str:
    return json.dumps({"name": what, "ph": "M", "pid": process, "tid": thread, "args": {"name": name}})


def _steps(track: Track, first: int, process: int, origin: int) -> Iterator[str]:
    begins = track.begins[track.phases.first_of_steps]
    ends = [*begins[1:].tolist(), int(track.ends[-1])]
    for number, (begin, end) in enumerate(zip(begins.tolist(), ends, strict=True)):
        yield _event(f"step {first + number}", "step", begin - origin, end - begin, process, track.rank)


def _phases(track: Track, first: int, process: int, origin: int, layers: list[str]) -> Iterator[str]:
    phases = track.phases
    columns = (track.begins - origin, track.ends - track.begins, phases.phases, phases.numbers, phases.shards)
    for begin, length, phase, number, shard, step in zip(
        *(column.tolist() for column in columns), track.steps.tolist(), strict=True
    ):
        name = f"{NAMES[phase]} {layers[number]}" if phase in (FORWARD, BACKWARD) else NAMES[phase]
        yield _event(
            name, NAMES[phase], begin, length, process, track.rank, f'{{"step":{first + step},"shard":{shard}}}'
        )


def _messages(timeline: Timeline, rank: int, process: int, origin: int) -> Iterator[str]:
    """Messages between nodes, from when they are handed over until they have come, as tracks of their own."""
    messages = timeline.messages[rank]
    columns = messages.senders, messages.sent - origin, messages.arrived - origin, messages.sizes_bytes
    first = timeline.segment.first
    for number, (sender, sent, arrived, size) in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        common = (
            f'"cat":"message","name":"from worker {sender} to {rank}","id":"{first}.{rank}.{number}","pid":{process},'
            f'"tid":{rank}'
        )
        yield f'{{"ph":"b",{common},"ts":{_us(sent)},"args":{{"bytes":{size}}}}}'
        yield f'{{"ph":"e",{common},"ts":{_us(arrived)}}}'


def _event(name: str, kind: str, begin: int, length: int, process: int, thread: int, arguments: str = "{}") -> str:
    return (
        f'{{"ph":"X","name":"{name}","cat":"{kind}","ts":{_us(begin)},"dur":{_us(length)},"pid":{process},'
        f'"tid":{thread},"args":{arguments}}}'
    )


def _us(ns: int) -> str:
    """Nanoseconds in microseconds, exactly."""
    return f"{ns / 1000:.3f}"

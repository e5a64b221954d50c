"""Jobs that run on this machine: each coordinator has a board for others to read, with what they may want to know.

A board is a memfd with a name of its own, which whoever looks finds in /proc among the open files of the user's
processes. So there is no folder to be trusted, none that is full, and nothing to be cleared away: the board is gone
with its process, however that ends.
"""

from __future__ import annotations

import json
import os
import shlex
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from dist_relu.comm import whereabouts
from dist_relu.comm.barrier import control_shape
from dist_relu.comm.shared_memory import Handle, attach
from dist_relu.core.arrays import Array
from dist_relu.runtime.process_info import ProcessInfo, nodes_of

_NAME = "dist_relu-job-1"
"""Boards on which other things stand have another number: those of other versions are left out."""

_MOST_BYTES = 1 << 20
_LOOK_S, _LONGEST_LOOK_S = 0.1, 2.0


@final
class Board:
    """A coordinator's board.  Nothing is raised where there can be none: then others don't see this job."""

    def __init__(self) -> None:
        self._facts: dict[str, Any] = {"pid": os.getpid()}
        self._descriptor: int | None = None
        with suppress(OSError):
            self._descriptor = os.memfd_create(_NAME, os.MFD_CLOEXEC)
            self._close = weakref.finalize(self, os.close, self._descriptor)

    def note(self, **facts: Any) -> None:
        """Put facts up, numbers, texts and lists of them, in place of those with the same names; takes 20 us."""
        self._facts |= facts
        if self._descriptor is not None:
            with suppress(OSError):
                os.pwrite(self._descriptor, json.dumps(self._facts).encode() + b"\0", 0)

    def note_workers(self, backend: str, peers: Sequence[ProcessInfo], node: int | None, control: Handle) -> None:
        """Put up who the workers are.  node: whose control memory it is; None: none of theirs."""
        ranks = range(0) if node is None else nodes_of(peers)[node]
        self.note(
            backend=backend,
            workers=[(peer.pid, peer.host) for peer in peers],
            here=(ranks.start, ranks.stop),
            control=(control.pid, control.descriptor, control.inode),
        )

    def close(self) -> None:
        """Take the board away.  May be called twice."""
        if self._descriptor is not None:
            self._descriptor = None
            self._close()


@dataclass(frozen=True, kw_only=True)
class JobWorker:
    """A worker as others see it.

    step, phase, since_s: see `dist_relu.comm.whereabouts.Place`; None on other nodes than the coordinator's.
    waits: whether it waits for others of its node.
    """

    rank: int
    pid: int
    host: str
    step: int | None = None
    phase: str | None = None
    since_s: float | None = None
    waits: bool = False


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as others see it.

    pid: of the coordinator.  started: in seconds since 1970.  progress: as the workers last reported it, by the names
    of `dist_relu.engine.watch.events.Progress`; None where nothing was trained yet.  steps_per_second: None when no
    step has begun while this looked.  checkpoints: the folder that they go to.  recoveries: what was lost so far, and
    how the others went on.
    """

    pid: int
    command: str
    folder: str
    started: float
    backend: str
    workers: Sequence[JobWorker]
    steps_per_second: float | None
    progress: dict[str, Any] | None
    checkpoints: str | None
    recoveries: Sequence[str]


def running_jobs() -> list[Job]:
    """Find the jobs that this user runs on this machine, by their age; looks for some tenths of a second."""
    found = [seen for facts in _boards() if (seen := _Seen.of(facts))]
    deadline = time.monotonic() + _LONGEST_LOOK_S
    while any(seen.may_step_on() for seen in found) and time.monotonic() < deadline:
        time.sleep(_LOOK_S)
    jobs = []
    for seen in found:
        with suppress(OSError):  # it has ended meanwhile
            jobs.append(seen.job())
    return sorted(jobs, key=lambda job: job.started)


@final
class _Seen:
    """A job at the first look."""

    def __init__(self, facts: dict[str, Any], control: Array | None) -> None:
        self._facts, self._control = facts, control
        self._first = range(*facts["here"]).start
        self._before = self._places()

    @classmethod
    def of(cls, facts: dict[str, Any]) -> _Seen | None:
        """See a job by its board; None when it has ended."""
        here, (pid, descriptor, inode) = range(*facts["here"]), facts["control"]
        if not here:
            return cls(facts, None)
        try:
            return cls(facts, attach(Handle(pid, descriptor, inode, control_shape(len(here)), np.dtype(np.int64))))
        except (OSError, ValueError):  # it is another one's by now
            return None

    def may_step_on(self) -> bool:
        """Tell whether it takes steps, and has not begun another one yet."""
        places = self._places()
        return bool(places) and places[0].step is not None and places[0].step == self._before[0].step

    def job(self) -> Job:
        """Look again, and tell of the job.  Raises OSError when it has ended."""
        pid, facts = self._facts["pid"], self._facts
        places = self._places()
        process = Path(f"/proc/{pid}")
        arguments = (process / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
        return Job(
            pid=pid,
            command=shlex.join(arguments),
            folder=os.readlink(process / "cwd"),
            started=_started(process),
            backend=facts["backend"],
            workers=[
                JobWorker(rank=rank, pid=worker_pid, host=host, **self._seen_of(rank, places))
                for rank, (worker_pid, host) in enumerate(facts["workers"])
            ],
            steps_per_second=self._rate(places),
            progress=facts.get("progress"),
            checkpoints=facts.get("checkpoints"),
            recoveries=facts.get("recoveries", []),
        )

    def _places(self) -> list[whereabouts.Place]:
        if self._control is None:
            return []
        return [whereabouts.read(self._control, rank) for rank in range(len(range(*self._facts["here"])))]

    def _seen_of(self, rank: int, places: Sequence[whereabouts.Place]) -> dict[str, Any]:
        if not 0 <= rank - self._first < len(places):
            return {}
        place = places[rank - self._first]
        is_last = place.meetings == max(place.meetings for place in places)
        return {
            "step": place.step,
            "phase": place.name,
            "since_s": time.monotonic() - place.since_ns / 1e9,
            "waits": is_last and place.meetings > min(place.meetings for place in places),
        }

    def _rate(self, places: Sequence[whereabouts.Place]) -> float | None:
        for before, now in zip(self._before, places, strict=True):
            if before.step is not None and now.step is not None and now.step > before.step:
                return (now.step - before.step) / (now.since_ns - before.since_ns) * 1e9
        return None


def _boards() -> Iterator[dict[str, Any]]:
    """Go through the boards of this user's processes on this machine."""
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        links: list[Path] = []
        with suppress(OSError):  # it has ended
            if process.stat().st_uid == os.getuid():
                links = list((process / "fd").iterdir())
        for link in links:
            with suppress(OSError, ValueError):  # it was closed, or is written at the moment
                if os.readlink(link).startswith(f"/memfd:{_NAME} "):
                    facts = json.loads(link.read_bytes()[:_MOST_BYTES].partition(b"\0")[0])
                    # A process that it has forked, or one of another container, has another number.
                    if facts["pid"] == int(process.name) and "workers" in facts:
                        yield facts


def _started(process: Path) -> float:
    """When a process has started, in seconds since 1970."""
    ticks = int((process / "stat").read_bytes().rpartition(b")")[2].split()[19])
    since_boot_s = ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot_s)

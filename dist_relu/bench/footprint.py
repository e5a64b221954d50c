"""What a side takes that is alone on the machine: memory, and time until its first step is done."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path
from time import perf_counter, sleep
from typing import final

from dist_relu.bench.cases import Beginning, Case
from dist_relu.bench.sides import Start, running

_LEAST_S, _LEAST_STEPS = 1.0, 5
"""So long it trains behind its first step, and so many steps at least, in which memory gets as large as it will."""

_STEP = methodcaller("train", 1)

_SHARE = 0.05
"""So much of a core may the looks at memory take."""


@dataclass(frozen=True)
class Footprint:
    """Memory and time of a side that trains a case, with nobody else beside it.

    first_step_s: from the start of its processes until its first step is done, kernels of ours having been compiled
    before.  peak_bytes: the most memory that all its processes together had, by their proportional set sizes, in which
    a page of several processes counts once.
    """

    first_step_s: float
    peak_bytes: int


def footprint(name: str, start: Start, cores: Collection[int], case: Case, beginning: Beginning) -> Footprint:
    """Start a side, train a case, and let it end."""
    begin = perf_counter()
    with running(name, start, cores, {}) as side, _Memory(side.pids).watched() as memory:
        side.prepare(case, beginning)
        side.ask(_STEP)
        first_step_s = perf_counter() - begin
        begin, steps = perf_counter(), 0
        while perf_counter() - begin < _LEAST_S or steps < _LEAST_STEPS:
            side.ask(_STEP)
            steps += 1
        memory.look()
    return Footprint(first_step_s, memory.peak_bytes)


@final
class _Memory:
    """The memory of processes and of all that they have started.  peak_bytes: the most that was seen."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._ended = threading.Event()
        self.peak_bytes = 0

    @contextmanager
    def watched(self) -> Iterator[_Memory]:
        """Look at it again and again, in a thread of its own."""
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            thread.join()

    def look(self) -> None:
        """Look at it now."""
        self.peak_bytes = max(self.peak_bytes, sum(map(proportional_bytes, descendants(self._pids))))

    def _watch(self) -> None:
        while not self._ended.is_set():
            begin = perf_counter()
            self.look()
            sleep((perf_counter() - begin) / _SHARE)


def descendants(pids: Sequence[int]) -> list[int]:
    """List processes, and those that they have started, and so on."""
    found = list(pids)
    for pid in found:  # grows meanwhile
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            found += map(int, _read(task).split())
    return found


def proportional_bytes(pid: int) -> int:
    """Tell the proportional set size of a process: its own pages, and its share of others; 0: it ended."""
    for line in _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""  # the process has ended

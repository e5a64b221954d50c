"""How to notice workers that stand still, so that they neither answer nor die: stopped by a signal, or frozen."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import final

from dist_relu.comm import whereabouts
from dist_relu.core.arrays import Array
from dist_relu.core.machine import cpu_ticks, is_stopped
from dist_relu.errors import WorkerLost

CHECK_PERIOD_S = 1.0
WORKER_TIMEOUT_S = 20.0
"""How long a worker may be stopped, by default, before it counts as lost."""


@final
class StopDetector:
    """Notices processes of this node that stand still for `timeout_s`.

    These are processes that a signal has stopped, and workers in the middle of a training step that use no processor
    time: frozen by a control group, stuck in a system call, without memory to run in. Who waits in a barrier looks up
    all the time, and who computes for long does not count.
    It counts checks, not seconds, so that nobody is blamed after this process itself was stopped.

    control: of the node, where workers note what they do; None: only those count that a signal has stopped.  first: the
    rank of its first worker.
    """

    def __init__(self, timeout_s: float = WORKER_TIMEOUT_S, control: Array | None = None, first: int = 0) -> None:
        self._max_checks = timeout_s / CHECK_PERIOD_S
        self._control, self._first = control, first
        self._num_checks: dict[int, int] = {}  # how often each was seen to stand still, one check after the other
        self._times: dict[int, tuple[int, int] | None] = {}
        self._next_s = 0.0

    def check(self, pids: Mapping[int, int], host: str) -> None:
        """Look at these processes, by rank; to be called at least once a second.  Raises WorkerLost."""
        now = time.monotonic()
        if now < self._next_s:
            return
        self._next_s = now + CHECK_PERIOD_S / 2
        before, self._times = self._times, {rank: self._time_in_step(rank, pid) for rank, pid in pids.items()}
        still = {
            rank for rank, time_in_step in self._times.items() if time_in_step and time_in_step == before.get(rank)
        }
        stopped = {rank for rank, pid in pids.items() if is_stopped(pid)}
        self._num_checks = {rank: self._num_checks.get(rank, 0) + 1 for rank in still | stopped}
        for rank, num_checks in self._num_checks.items():
            if num_checks >= self._max_checks:
                how = "was stopped by a signal, such as SIGSTOP," if rank in stopped else "stands still in a step"
                loss = WorkerLost(
                    f"Worker {rank} (host {host}, pid {pids[rank]}) {how} and has not gone on for many seconds."
                )
                loss.ranks = [rank]
                raise loss

    def _time_in_step(self, rank: int, pid: int) -> tuple[int, int] | None:
        """In which step a worker is, and how much processor time it has used so far; None outside of steps."""
        if self._control is None:
            return None
        step = whereabouts.read(self._control, rank - self._first).step
        return None if step is None else (step, cpu_ticks(pid))

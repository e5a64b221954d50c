"""How to notice workers that a signal has stopped, so that they neither answer nor die."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import final

from dist_relu.core.machine import is_stopped
from dist_relu.errors import WorkerLost

CHECK_PERIOD_S = 1.0
WORKER_TIMEOUT_S = 20.0
"""How long a worker may be stopped, by default, before it counts as lost."""


@final
class StopDetector:
    """Notices processes of this node that were stopped by a signal and do not go on for `timeout_s`.

    It counts checks, not seconds, so that nobody is blamed after this process itself was stopped. A worker that only
    computes for long does not count.
    """

    def __init__(self, timeout_s: float = WORKER_TIMEOUT_S) -> None:
        self._max_checks = timeout_s / CHECK_PERIOD_S
        self._num_checks: dict[int, int] = {}  # how often each was seen stopped, one check after the other
        self._next_s = 0.0

    def check(self, pids: Mapping[int, int], host: str) -> None:
        """Look at these processes, by rank; to be called at least once a second.  Raises WorkerLost."""
        now = time.monotonic()
        if now < self._next_s:
            return
        self._next_s = now + CHECK_PERIOD_S / 2
        self._num_checks = {rank: self._num_checks.get(rank, 0) + 1 for rank, pid in pids.items() if is_stopped(pid)}
        for rank, num_checks in self._num_checks.items():
            if num_checks >= self._max_checks:
                loss = WorkerLost(
                    f"Worker {rank} (host {host}, pid {pids[rank]}) was stopped by a signal, such as SIGSTOP, and has "
                    "not gone on for many seconds."
                )
                loss.ranks = [rank]
                raise loss

"""Workers that somebody has stopped, so that they neither answer nor die."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import final

from dist_relu.core.machine import is_stopped
from dist_relu.errors import WorkerLost

LOOK_EVERY_S = 1.0
_LOOKS_IN_VAIN = 20


@final
class Standstill:
    """Notices processes of this node that were stopped by a signal and do not go on.

    It counts looks, not seconds, so that nobody is blamed after this process itself has stood still. Who only computes
    for long does not count.
    """

    def __init__(self) -> None:
        self._looks: dict[int, int] = {}  # how often each was seen to stand still, one look after the other
        self._next_s = 0.0

    def look(self, pids: Mapping[int, int], host: str) -> None:
        """To be called at least once a second while waiting for these, by rank.  Raises WorkerLost."""
        now = time.monotonic()
        if now < self._next_s:
            return
        self._next_s = now + LOOK_EVERY_S / 2
        self._looks = {rank: self._looks.get(rank, 0) + 1 for rank, pid in pids.items() if is_stopped(pid)}
        for rank, looks in self._looks.items():
            if looks >= _LOOKS_IN_VAIN:
                raise WorkerLost(
                    f"Worker {rank} (host {host}, pid {pids[rank]}) was stopped by a signal, such as SIGSTOP, and has "
                    "not gone on for many seconds. Start other workers."
                )

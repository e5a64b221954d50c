"""Waiting for messages without burning a core that somebody else may need."""

from __future__ import annotations

import os
import time
from typing import final

_SHORTEST_PAUSE_S = 0.00002


@final
class Backoff:
    """Pauses between two looks: at first the processor is only offered to others, then they grow up to `longest_s`."""

    def __init__(self, *, longest_s: float, num_offers: int = 0) -> None:
        self._longest_s = longest_s
        self._num_offers = num_offers
        self._in_vain = 0
        self._pause_s = _SHORTEST_PAUSE_S

    def pause(self, *, retry: bool) -> None:
        """Wait a little; longer than before if it is for the same thing `retry`."""
        if not retry:
            self._in_vain, self._pause_s = 0, _SHORTEST_PAUSE_S
        if self._in_vain < self._num_offers:
            self._in_vain += 1
            os.sched_yield()
        else:
            time.sleep(self._pause_s)
            self._pause_s = min(self._pause_s * 1.5, self._longest_s)

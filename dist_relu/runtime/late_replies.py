"""How the coordinator notices that it waits long for the replies of some workers only.

Those who wait for one another in a barrier say so themselves (`dist_relu.comm.stall_detector`). But in an evaluation
there is none, and neither is there when a worker is still busy with a call that was given up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import final

from dist_relu.comm import whereabouts
from dist_relu.comm.shared_memory import attach
from dist_relu.comm.stall_detector import Resumed, Stalled, told_of
from dist_relu.runtime.backends.base import Backend
from dist_relu.runtime.process_info import nodes_of


@final
class LateReplies:
    """Looks, during a call to some workers, for those of the coordinator's node whose replies are late.

    A function of the user's, which may have more to do on one worker than on others, is late only when it was given up.
    tell: takes `Stalled`, once for each wait, and then `Resumed`.
    """

    def __init__(self, backend: Backend, ranks: Sequence[int], tell: Callable[[Stalled | Resumed], object]) -> None:
        self._backend, self._ranks, self._tell = backend, ranks, tell
        self._busy: frozenset[int] = frozenset()
        self._began_s = 0.0
        self._awaited = ""

    def check(self, was_given_up: bool) -> None:
        """Look who has not replied yet; to be called again and again.  was_given_up: the call that is waited for."""
        now, busy = time.monotonic(), frozenset(self._backend.busy)
        if busy != self._busy:
            if self._awaited:
                waited_s = now - self._began_s
                self._tell(Resumed(text=f"The wait for {self._awaited} is over, after {waited_s:.0f} s."))
            self._busy, self._began_s, self._awaited = busy, now, ""
        elif now - self._began_s >= self._backend.slow_after_s and not self._awaited:
            self._tell_of_late(now - self._began_s, was_given_up)

    def _tell_of_late(self, waited_s: float, was_given_up: bool) -> None:
        node, control, peers = self._backend.coordinator_node, self._backend.control, self._backend.peers
        nobody_is_done = len(self._busy) == len(self._ranks) and not was_given_up
        if nobody_is_done or node is None or control is None:
            return
        ranks = nodes_of(peers)[node]
        words = attach(control)
        places = {rank: whereabouts.read(words, rank - ranks.start) for rank in sorted(self._busy & set(ranks))}
        late = {
            rank: place
            for rank, place in places.items()
            if place.phase != whereabouts.IDLE and (was_given_up or place.phase != whereabouts.CALL)
        }
        names = {rank: f"worker {rank} (host {peers[rank].host}, pid {peers[rank].pid})" for rank in late}
        why = (
            "The call was given up, and the next one begins when it has noticed."
            if was_given_up
            else "Others are done."
        )
        told = [told_of(names[rank], peers[rank].pid, place, waited_s, why) for rank, place in late.items()]
        if told:
            self._awaited = " and ".join(names.values())
            self._tell(Stalled(text="\n".join(told)))

"""What the first worker of a node does for all: it keeps in touch with the coordinator, and looks after them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from socket import gethostname
from typing import final

from dist_relu.comm.stop_detector import CHECK_PERIOD_S, StopDetector
from dist_relu.core.arrays import Array
from dist_relu.errors import WorkerLost
from dist_relu.runtime.backends.heartbeat import Heartbeat, HeartbeatEndpoint

_SILENCE_S = 10.0


def rhythm(worker_timeout_s: float) -> tuple[float, float]:
    """Tell how often the two ends of a heartbeat speak, and after how long a silence a node counts as lost."""
    timeout_s = min(_SILENCE_S, worker_timeout_s)
    return timeout_s / 10, timeout_s


@final
class NodeWatch:
    """A heartbeat to the coordinator, and a thread that looks whether the workers of this node were stopped.

    Ray does not notice that, and the coordinator does not see their processes. Who has been stopped for `timeout_s` is
    told to the coordinator and killed, so that all that waits for it goes on.

    endpoint: the coordinator's.  control: of this node.  pids: of its workers, by rank.  on_loss: see `Heartbeat`.
    """

    def __init__(
        self,
        endpoint: HeartbeatEndpoint,
        control: Array,
        pids: Mapping[int, int],
        on_loss: Callable[[str], object],
        timeout_s: float,
    ) -> None:
        period_s, silence_s = rhythm(timeout_s)
        self._heartbeat = Heartbeat([endpoint.connect()], control, on_loss, period_s=period_s, timeout_s=silence_s)
        self._pids = pids
        self._stop_detector = StopDetector(timeout_s)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="dist_relu-node-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Say goodbye to the coordinator.  May be called twice."""
        self._closed.set()
        self._thread.join()
        self._heartbeat.close()

    def _work(self) -> None:
        while not self._closed.wait(CHECK_PERIOD_S):
            try:
                self._stop_detector.check(self._pids, gethostname())
            except WorkerLost as loss:
                for rank in loss.ranks:
                    self._heartbeat.report_stopped(rank)
                    with suppress(ProcessLookupError):
                        os.kill(self._pids[rank], signal.SIGKILL)

"""What workers of other nodes than the coordinator's do for one another: they look whether one was stopped."""

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
    """A thread that looks whether other workers of this node were stopped, and the heartbeat to the coordinator.

    Ray does not notice that, and the coordinator does not see their processes. Who has been stopped for `timeout_s` is
    killed, so that all who wait for it go on. All workers look, for the first one may be the one that was stopped.

    endpoint: the coordinator's, for the first worker of the node, who also tells it of those that were stopped.
    control: of this node.  pids: of its workers, by rank.  on_loss: see `Heartbeat`.
    """

    def __init__(
        self,
        endpoint: HeartbeatEndpoint | None,
        control: Array,
        pids: Mapping[int, int],
        on_loss: Callable[[str], object],
        timeout_s: float,
    ) -> None:
        self._heartbeat: Heartbeat | None = None
        if endpoint:
            period_s, silence_s = rhythm(timeout_s)
            link = endpoint.connect()
            self._heartbeat = Heartbeat([link], control, on_loss, period_s=period_s, timeout_s=silence_s)
        self._pids = pids
        self._stop_detector = StopDetector(timeout_s)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="dist_relu-node-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Say goodbye to the coordinator.  May be called twice."""
        self._closed.set()
        self._thread.join()
        if self._heartbeat:
            self._heartbeat.close()

    def _work(self) -> None:
        while not self._closed.wait(CHECK_PERIOD_S / 2):
            try:
                self._stop_detector.check(self._pids, gethostname())
            except WorkerLost as loss:
                for rank in loss.ranks:
                    if self._heartbeat:
                        self._heartbeat.report_stopped(rank)
                    with suppress(ProcessLookupError):
                        os.kill(self._pids[rank], signal.SIGKILL)

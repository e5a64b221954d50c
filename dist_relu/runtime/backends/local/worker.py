"""What a local worker does from its first message to its last."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, final

import cloudpickle

from dist_relu.runtime.backends.local.bootstrap import Lifeline
from dist_relu.runtime.backends.local.supervisor import GRACE_S, descendants
from dist_relu.runtime.process_info import ProcessInfo
from dist_relu.runtime.worker import Worker, WorkerConfig

_TIME_TO_DIE_S = 0.1
"""After so long it is clear whether the supervisor has let go or died."""

EVENT, REPLY = b"E", b"R"
"""The first byte of a worker's message; a pickle follows."""


def serve(connection: Connection[Any, Any], lifeline: Lifeline) -> None:
    """Run tasks from the coordinator until it hangs up; then this process ends as any Python program does."""
    ending = _Ending(lifeline)
    me = os.getpid()
    with suppress(EOFError, ConnectionResetError, BrokenPipeError):
        connection.send(ProcessInfo.here())
        worker: Worker | None = None
        while True:
            message = cloudpickle.loads(connection.recv_bytes())
            if isinstance(message, WorkerConfig):  # the first message, and another one for each new group
                if worker:
                    worker.close()
                worker = Worker(message, lambda event: connection.send_bytes(EVENT + cloudpickle.dumps(event)))
                continue
            assert worker
            try:
                reply = worker.run(message)
            finally:
                if os.getpid() != me:  # a process that the function has forked; it must not answer for us
                    os._exit(1)
            connection.send_bytes(REPLY + reply)
    ending.has_begun()


@final
class _Ending:
    """Lets the main thread leave whatever it does when the supervisor lets go.

    SIGTERM, by which the thread is woken, is from the supervisor then; from anybody else it kills, as by default.
    """

    def __init__(self, lifeline: Lifeline) -> None:
        self._supervisor = select.poll()
        self._supervisor.register(os.pidfd_open(os.getppid()), select.POLLIN)
        self._is_due = self._has_begun = False
        self._main = threading.main_thread().ident
        signal.signal(signal.SIGTERM, self._on_terminate)
        lifeline.at_end = self._end

    def has_begun(self) -> None:
        """Note that the main thread needs no telling any more."""
        self._has_begun = True

    def _end(self) -> None:
        """End this process.  Called in the lifeline's thread."""
        if not self._supervisor.poll(_TIME_TO_DIE_S * 1000):  # it lives, and kills what is left in a moment
            self._is_due = True
            assert self._main is not None
            signal.pthread_kill(self._main, signal.SIGTERM)
            self._supervisor.poll(2 * GRACE_S * 1000)
        for pid in descendants():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os._exit(1)

    def _on_terminate(self, number: int, frame: object) -> None:
        if not self._is_due:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif not self._has_begun:
            self._has_begun = True
            sys.exit()

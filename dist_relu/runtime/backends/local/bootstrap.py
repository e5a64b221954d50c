"""The first lines of a local worker: python bootstrap.py SOCKET LIFELINE.

Nothing of the package can be imported before the coordinator has said, through the socket, where modules are. Until
the worker has told what is to happen in the end, it ends at once when its lifeline, a pipe, is cut.
"""

import atexit
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any


class Lifeline:
    """Calls `at_end`, in a thread of its own, when the process that holds the other end lets go or dies."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.at_end: Callable[[], object] = lambda: os._exit(0)
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        hang_up = select.poll()
        hang_up.register(self._descriptor, 0)
        hang_up.poll()
        self.at_end()


def main(descriptor: int, lifeline: int) -> None:
    # Ctrl-C is for the coordinator. Were it ignored, the programs that functions start would ignore it, too.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    for inherited in (descriptor, lifeline):
        os.set_inheritable(inherited, False)
    life = Lifeline(lifeline)
    connection: Connection[Any, Any] = Connection(descriptor)
    try:
        sys.path[:] = connection.recv()
    except (EOFError, ConnectionResetError):
        return
    from dist_relu.runtime.backends.local.worker import serve

    serve(connection, life)
    # As at the end of any program, but for taking modules apart, which takes a third of a second.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # functions may have closed it
            stream.flush()
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

"""How Ctrl-C, and whatever else asks for an end, is held back while a message is half sent or half received."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Hold back Ctrl-C meanwhile: half a message would put a connection out of step.

    So it is with SIGTERM and SIGHUP where the program has handlers for them, which may raise. Blocking the signals
    would not do: another thread of this process, such as one of BLAS, would get them, and Python lets the main thread
    handle them all the same.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[tuple[int, FrameType | None]] = []
    handlers = {number: handler for number in _ENDING if callable(handler := signal.getsignal(number))}
    for number in handlers:
        signal.signal(number, lambda *arrived: received.append(arrived))  # raises first what has come just before
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if received:
            first, frame = received[0]
            handlers[signal.Signals(first)](first, frame)

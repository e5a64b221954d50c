"""How Ctrl-C is held back while a message is half sent or half received."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Hold back Ctrl-C meanwhile: half a message would put a connection out of step.

    Blocking the signal would not do: another thread of this process, such as one of BLAS, would get it, and Python lets
    the main thread handle it all the same.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    frames: list[FrameType | None] = []
    signal.signal(signal.SIGINT, lambda _, frame: frames.append(frame))  # raises first what has come just before
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if frames:
            handler(signal.SIGINT, frames[0])

"""How signals end a command: SIGTERM, SIGHUP and Ctrl-C let it write what it has, a second Ctrl-C ends it at once.

Batch systems and clusters send SIGTERM some time before they kill, and a terminal that is closed sends SIGHUP. Exit
codes are 128 and the number of the signal, as shells have them.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import final

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SHOW_CURSOR = b"\x1b[?25h\n"
_MOMENT_S = 0.01


@final
class EndingSignals:
    """Raises KeyboardInterrupt at the first signal that asks for an end.  received: its number."""

    received: int | None = None

    @property
    def exit_code(self) -> int:
        """Tell which signal it was; Ctrl-C where nobody knows."""
        return 128 + (self.received or signal.SIGINT)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if self.received is None:
            self.received = number
            _let_go_of_lost_terminals()
            raise KeyboardInterrupt
        if number == signal.SIGINT:
            _leave_at_once()

    def raise_again(self, lost: BaseException | None) -> bool:
        """Raise KeyboardInterrupt in a moment where it came into a finalizer, which nothing leaves; returns whether."""
        if self.received is None or not isinstance(lost, KeyboardInterrupt):
            return False
        number, self.received = self.received, None
        threading.Timer(_MOMENT_S, os.kill, (os.getpid(), number)).start()
        return True

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Raise KeyboardInterrupt again where the import of a module written in C has made an ImportError of it."""
        try:
            yield
        except ImportError as error:
            if self.received is None:
                raise
            raise KeyboardInterrupt from error


@contextmanager
def ending_signals() -> Iterator[EndingSignals]:
    """Let signals end a command meanwhile, but for those that are ignored: a program of nohup survives its terminal."""
    signals = EndingSignals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    handlers = {
        number: handler for number in _ENDING if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None)
    }
    hook = sys.unraisablehook
    for number in handlers:
        signal.signal(number, signals.handle)
    sys.unraisablehook = lambda lost: None if signals.raise_again(lost.exc_value) else hook(lost)
    try:
        yield signals
    finally:
        sys.unraisablehook = hook
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _let_go_of_lost_terminals() -> None:
    """Write to nowhere in place of a terminal that has hung up: everything that is told would fail."""
    for descriptor in (1, 2):
        try:
            termios.tcgetattr(descriptor)
        except termios.error as error:
            if error.args[0] == errno.EIO:
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def _leave_at_once() -> None:
    """End this process as if it were killed; those that it has started notice."""
    with suppress(OSError, ValueError):
        if sys.stdout.isatty():
            os.write(1, _SHOW_CURSOR)
    os._exit(128 + signal.SIGINT)

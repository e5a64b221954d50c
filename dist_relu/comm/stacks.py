"""How a process of a node sees where another one is in its Python code, even when that is stuck in a call.

A process that offers its stack lets `faulthandler` answer a signal, in C and without waiting for the interpreter's
lock: the stacks of all its threads go into a memfd, which others of the same user open through /proc.
"""

from __future__ import annotations

import faulthandler
import fcntl
import os
import signal
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from dist_relu.core.machine import is_stopped

STACK_SIGNAL = signal.SIGRTMIN + 11
"""Asks for the stacks. Libraries that take signals for themselves take SIGUSR1 and 2, or the ends of this range."""

_FIRST_FREE = 3
"""The first descriptor behind the standard streams, any of which may be closed."""

_LOOK_S = 0.01
_MOST_BYTES = 20_000


@cache
def offer_stack() -> tuple[int, int]:
    """Let other processes of this node see the stacks of this one; returns what `stack_of` takes."""
    memfd = os.memfd_create("dist_relu-stack", os.MFD_CLOEXEC)
    try:
        descriptor = fcntl.fcntl(memfd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
    finally:
        os.close(memfd)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)
    faulthandler.register(STACK_SIGNAL, file=descriptor, all_threads=True)
    return descriptor, os.fstat(descriptor).st_ino


def stack_of(pid: int, descriptor: int, inode: int, *, timeout_s: float = 2.0) -> str:
    """Return the stacks of a process that offers them; or why they can't be had, such as that it is stopped."""
    try:
        own = os.open(f"/proc/{pid}/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return _without_stack("it offers none, or has ended")
    try:
        if os.fstat(own).st_ino != inode or not _catches(pid, STACK_SIGNAL):
            return _without_stack("it offers none")
        os.truncate(own, 0)
        os.kill(pid, STACK_SIGNAL)
        text = _read(own, timeout_s)
    except OSError:
        return _without_stack("it has ended")
    finally:
        os.close(own)
    if text:
        return text
    return _without_stack("a signal such as SIGSTOP has stopped it" if is_stopped(pid) else "it does not react")


def _read(descriptor: int, timeout_s: float) -> str:
    """Wait until something was written and no more comes."""
    deadline = time.monotonic() + timeout_s
    size = 0
    while time.monotonic() < deadline:
        time.sleep(_LOOK_S)
        before, size = size, os.fstat(descriptor).st_size
        if size and size == before:
            break
    return os.pread(descriptor, _MOST_BYTES, 0).decode(errors="replace").rstrip()


def _catches(pid: int, number: int) -> bool:
    """Tell whether a process has a handler for a signal, which would kill it otherwise."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def _without_stack(why: str) -> str:
    return f"(Its Python stack can't be had: {why}.)"

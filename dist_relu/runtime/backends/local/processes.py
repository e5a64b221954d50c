"""How processes of this machine start as workers: what they inherit, what they are told, and who ends them.

A worker is a fresh Python process, so that a user's script needs no `if __name__ == "__main__"`.

It inherits what any program does that the script starts: environment, working folder, limits, output. Its standard
input is empty, no signal is blocked or newly ignored, and two descriptors are open, one to the coordinator and one to
the supervisor. One thing is set: how many threads libraries may use, in OMP_NUM_THREADS and its kin, because most read
it when they are loaded. Programs that functions start inherit that limit, since they share the cores with other
workers. Python itself is started with the script's own flags.

It is told the rest: `sys.path` in its first message, and with every task the command line, the working folder,
`sys.path` again, and which modules have been reloaded (`dist_relu.runtime.surroundings`). So nothing of it is in
variables that other programs would inherit.

A supervisor ends it: a small process between the coordinator and its workers. When the coordinator closes or dies,
workers end as Python programs do, with what they registered with `atexit`; after two seconds they and all that they
have started are killed. When the supervisor dies, workers end at once. A worker that is still importing modules ends at
once in either case. A process that the coordinator has forked neither keeps workers alive nor ends them.
"""

from __future__ import annotations

import fcntl
import marshal
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import spawn, util
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, final

from dist_relu.core.machine import how_it_ended
from dist_relu.errors import BackendError
from dist_relu.runtime.backends.interrupts import without_interrupts
from dist_relu.runtime.backends.local import bootstrap, supervisor
from dist_relu.runtime.surroundings import import_paths

THREAD_VARIABLES = "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"

_MARK = "DIST_RELU_SUPERVISOR"
"""Set for the supervisor alone: a program that finds it in its environment was started in place of Python."""

_FOR_ANY_PROGRAM = ("PYTHONHOME", "PATH", "LANG", "LC_ALL")
_FIRST_FREE = 3
"""The first descriptor behind the standard streams, any of which may be closed."""

_TIME_TO_END_S = supervisor.GRACE_S + 3.0
_TIME_TO_TELL_S = 2.0
_WHAT_TO_DO = (
    'Say which Python to run with multiprocessing.set_executable("/path/to/python3"), where dist_relu is installed, '
    'or use backend="serial".'
)


@final
class LocalProcesses:
    """Starts `number` worker processes and their supervisor, and ends them.

    connections: to each worker.  news: becomes readable when a worker has ended, or the supervisor.
    """

    def __init__(self, number: int, threads: int) -> None:
        command = [python(), *flags(), "-P", bootstrap.__file__]
        environment = dict(os.environb) | {name.encode(): str(threads).encode() for name in THREAD_VARIABLES}
        environment.pop(b"PYTHONINSPECT", None)  # a worker would end in a prompt
        pairs = [_socket_pair() for _ in range(number)]
        self.news, control = _socket_pair()
        self.connections: list[Connection[Any, Any]] = [Connection(ours.detach()) for ours, _ in pairs]
        self._pids: dict[int, int] = {}
        self._codes: dict[int, int] = {}
        self._buffer = b""
        try:
            with without_interrupts(), _blocked_interrupts():
                descriptors = [theirs.fileno() for _, theirs in pairs]
                self._supervisor = _start_supervisor(command[0], control, descriptors)
                order = marshal.dumps((command, environment, descriptors))
                with suppress(BrokenPipeError, ConnectionResetError):  # it will show as its end
                    self.news.sendall(supervisor.LENGTH.pack(len(order)) + order)
        finally:
            for _, theirs in pairs:
                theirs.close()
            control.close()
        self.news.setblocking(False)
        paths = import_paths()
        for connection in self.connections:
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.send(paths)

    @property
    def pids(self) -> dict[int, int]:
        """Return the pids of those that are known to have started, by number."""
        return self._pids

    @property
    def supervisor_code(self) -> int:
        """Return the code that the supervisor has ended with, negative for a signal; 0 as long as it lives."""
        return self._supervisor.poll() or 0

    def ended(self) -> dict[int, int]:
        """Tell with what codes workers have ended so far.  Raises BackendError when the supervisor has ended."""
        with suppress(BlockingIOError):
            while data := self._receive():
                self._buffer += data
            raise BackendError(
                f"The supervisor of the workers (pid {self._supervisor.pid}) {how_it_ended(self._supervisor.wait())}."
            )
        while len(self._buffer) >= supervisor.RECORD.size:
            number, value = supervisor.RECORD.unpack_from(self._buffer)
            self._buffer = self._buffer[supervisor.RECORD.size :]
            (self._codes if number in self._pids else self._pids)[number] = value
        return self._codes

    def exit_code(self, number: int) -> int | None:
        """Return the code of a worker that has hung up; None if it lives on for some reason."""
        poll = select.poll()
        poll.register(self.news, select.POLLIN)
        while number not in self.ended():
            if not poll.poll(_TIME_TO_TELL_S * 1000):
                return None
        return self._codes[number]

    def end(self, *, at_once: bool) -> None:
        """End all workers, and wait until they and all that they have started are gone.  May be called twice."""
        for connection in self.connections:
            if not connection.closed:
                hang_up(connection.fileno())
        if self.news.fileno() >= 0:
            with suppress(OSError):
                if at_once:
                    self.news.send(b"!")
                self.news.shutdown(socket.SHUT_WR)
        try:
            self._supervisor.wait(_TIME_TO_END_S)
        except subprocess.TimeoutExpired:  # somebody has stopped it
            with suppress(BackendError):
                self.ended()
            for pid in (*supervisor.descendants(self._supervisor.pid), self._supervisor.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._supervisor.wait()
        self.close()

    def close(self) -> None:
        """Close the sockets."""
        for connection in self.connections:
            connection.close()
        self.news.close()

    def _receive(self) -> bytes:
        try:
            return self.news.recv(4096)
        except ConnectionResetError:
            return b""


def python() -> str:
    """Find the program that runs Python.  Raises BackendError when it is not known."""
    if _MARK in os.environ:
        raise BackendError(
            f"This program ({sys.executable}) was run in place of Python, as a worker of another one. {_WHAT_TO_DO}"
        )
    is_frozen = getattr(sys, "frozen", False)
    for path in (os.fsdecode(spawn.get_executable() or ""), sys.executable or ""):  # the first is what the user set
        if _is_python(path) and not (is_frozen and path == sys.executable):
            return path
    what = "the program itself, which is frozen" if is_frozen else "no Python that workers could run"
    raise BackendError(f"sys.executable is {sys.executable!r}: {what}. {_WHAT_TO_DO}")


def _is_python(path: str) -> bool:
    """Tell whether a program, or what it is a link to, is called Python; it is not run to find out."""
    names = {Path(path).name, Path(path).resolve().name}
    return os.access(path, os.X_OK) and any("python" in name or "pypy" in name for name in names)


def flags() -> list[str]:
    """Return the flags that Python was started with."""
    return list(util._args_from_interpreter_flags())  # type: ignore[attr-defined]


@contextmanager
def _blocked_interrupts() -> Iterator[None]:
    """Block Ctrl-C meanwhile, for programs that are started, too, until they unblock it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # raises what has come just before
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_supervisor(executable: str, control: socket.socket, descriptors: list[int]) -> subprocess.Popen[bytes]:
    names = [name for name in os.environ if name in _FOR_ANY_PROGRAM or name.startswith("LD_")]
    try:
        return subprocess.Popen(
            [executable, "-S", "-P", "-s", supervisor.__file__, str(os.getpid())],
            env={**{name: os.environ[name] for name in names}, _MARK: "1"},
            stdin=control.fileno(),
            stdout=_or_nothing(1),
            stderr=_or_nothing(2),
            pass_fds=descriptors,
        )
    except OSError as error:
        raise BackendError(f"Can't start workers with {executable}: {error}. {_WHAT_TO_DO}") from error


def _or_nothing(descriptor: int) -> int | None:
    """Return the same output, or none where it is closed: other files would get its number."""
    try:
        os.fstat(descriptor)
    except OSError:
        return subprocess.DEVNULL
    return None


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    """Make two connected sockets that wait, whatever the default timeout is, and are none of the standard streams."""
    pair = []
    for end in socket.socketpair():
        with end:
            pair.append(socket.socket(fileno=fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)))
            pair[-1].setblocking(True)
    return pair[0], pair[1]


def hang_up(descriptor: int) -> None:
    """Hang up, even if a forked process still has our end."""
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as copy:
        copy.shutdown(socket.SHUT_RDWR)

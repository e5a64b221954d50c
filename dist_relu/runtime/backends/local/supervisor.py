"""A program that starts the local workers of a coordinator, and ends them: python supervisor.py PID_OF_COORDINATOR.

It stands between the two, so that somebody is left to clear up whatever is killed. What workers have started becomes
its own child when they are gone (it is a "subreaper", as they are), so that nothing can slip away. Its standard input
is a socket to the coordinator, from which it gets one order, see `read_order`. There it reports the pids of all
workers, and then each one that ends: number and exit code. When the coordinator hangs up or dies, workers have a moment
to end as Python programs do; then all that is left is killed. An exclamation mark means that there is nothing to wait
for. It imports nothing of the package: it must start at once and stay small.
"""

import ctypes
import marshal
import os
import select
import signal
import struct
import sys
import time
from contextlib import suppress
from typing import Any, NoReturn

GRACE_S = 2.0
"""How long workers may take to end by themselves, with all that they have registered with `atexit`."""

LENGTH = struct.Struct("!Q")
RECORD = struct.Struct("!ii")
"""The number of a worker, and its pid or its exit code, negative for a signal."""

_SIGNALS_FOR_OTHERS = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP)
_PR_SET_CHILD_SUBREAPER = 36
_PAUSE_S = 0.005


def main(coordinator: int) -> None:
    _be_left_alone()
    _adopt()
    wake, waker = os.pipe()
    for descriptor in (wake, waker):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    events = select.poll()
    with suppress(ProcessLookupError):
        for descriptor in (0, wake, os.pidfd_open(coordinator)):
            events.register(descriptor, select.POLLIN)
    order = read_order()
    if order is None or os.getppid() != coordinator:
        return  # it has died already
    lifeline = os.pipe()
    workers = start_workers(*order, lifeline)
    os.close(lifeline[0])
    grace_s = None
    while grace_s is None:
        for descriptor, _ in events.poll():
            if descriptor == wake:
                os.read(wake, 4096)
            else:
                grace_s = 0.0 if descriptor == 0 and _read(1) == b"!" else GRACE_S
        reap(workers)
    os.close(lifeline[1])
    end(workers, grace_s)


def read_order() -> tuple[list[str], dict[bytes, bytes], list[int]] | None:
    """Read what the coordinator orders: (command, its environment, the descriptor that each worker inherits).

    None when it has hung up before.
    """
    with suppress(struct.error, EOFError):
        order: Any = marshal.loads(_read(LENGTH.unpack(_read(LENGTH.size))[0]))
        command, environment, descriptors = order
        return command, environment, descriptors
    return None


def start_workers(
    command: list[str], environment: dict[bytes, bytes], descriptors: list[int], lifeline: tuple[int, int]
) -> dict[int, int]:
    """Start a worker for each descriptor; returns their numbers by pid.

    lifeline: a pipe of which all workers inherit the reading end: when we close the other one, or die, they end.
    """
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    workers = {}
    for number, descriptor in enumerate(descriptors):
        pid = os.fork()
        if not pid:
            _become_worker(command, environment, descriptor, lifeline[0])
        workers[pid] = number
        report(number, pid)
    for descriptor in descriptors:
        os.close(descriptor)
    return workers


def reap(workers: dict[int, int]) -> bool:
    """Reap all processes that have ended, and report workers among them; returns whether any is left."""
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return True
            if pid in workers:
                report(workers.pop(pid), os.waitstatus_to_exitcode(status))
    return False


def end(workers: dict[int, int], grace_s: float) -> None:
    """Wait for the workers for a moment, then kill all that is left of them and of what they have started."""
    deadline = time.monotonic() + grace_s
    while workers and time.monotonic() < deadline:
        time.sleep(_PAUSE_S)
        reap(workers)
    while reap(workers):
        for pid in descendants():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_PAUSE_S)


def report(number: int, value: int) -> None:
    with suppress(OSError):  # nobody listens any more
        os.write(0, RECORD.pack(number, value))


def descendants(pid: int | None = None) -> list[int]:
    """Find all that a process, by default this one, has started, and what they have started."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(name))
    found: list[int] = []
    generation = [os.getpid() if pid is None else pid]
    while generation := [child for parent in generation for child in children.get(parent, [])]:
        found += generation
    return found


def _be_left_alone() -> None:
    """Let signals that are meant for a whole group of processes pass, but not so that workers would ignore them, too.

    So they have handlers, which end with exec, unless they were ignored before.
    """
    signal.signal(signal.SIGCHLD, _do_nothing)
    for number in _SIGNALS_FOR_OTHERS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _do_nothing)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _adopt() -> None:
    """Be the parent of all that this process will have started, directly or not, when their own parents are gone."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _become_worker(command: list[str], environment: dict[bytes, bytes], descriptor: int, lifeline: int) -> NoReturn:
    try:
        _adopt()  # for the case that we are killed
        signal.set_wakeup_fd(-1)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.set_inheritable(descriptor, True)
        os.set_inheritable(lifeline, True)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # until the worker has its handler
        os.execve(command[0], [*command, str(descriptor), str(lifeline)], environment)
    except BaseException as error:
        os.write(2, f"{command[0]}: {error}\n".encode())
    finally:
        os._exit(127)


def _read(size: int) -> bytes:
    """Read so many bytes, or fewer where the coordinator has hung up, also before it had read all of ours."""
    data = b""
    with suppress(ConnectionError):
        while len(data) < size and (part := os.read(0, size - len(data))):
            data += part
    return data


def _do_nothing(*_: object) -> None:
    pass


if __name__ == "__main__":
    main(int(sys.argv[1]))

"""A program that clears up after Ray: python reaper.py FOLDER PID_OF_OWNER, or python reaper.py MARK PID.

After a cluster: Ray's own processes end with the process that started them, but some take a minute. When its standard
input closes, because the cluster has been shut down or its owner has died in whatever way, this program kills all
processes that have their files in FOLDER, and removes the folder.

After an actor: Ray leaves alone what functions have started there. When process PID has ended, in whatever way, this
program kills all processes in whose environment MARK stands. It leaves its parent first, for Ray would end it too soon.

It imports nothing of the package: it must start at once and stay small.
"""

import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress

MARK = "DIST_RELU_WORKER"
"""The variable that tells what an actor's functions have started."""


def after_cluster(folder: str, pid: str) -> None:
    ends = select.poll()
    ends.register(0, select.POLLIN)
    with suppress(ProcessLookupError):
        ends.register(os.pidfd_open(int(pid)), select.POLLIN)  # a process that it has forked may hold our input
        ends.poll()
    clear_up(folder)


def clear_up(folder: str) -> None:
    """Kill all processes of the Ray cluster whose files are in `folder`, and remove it."""
    _kill_all(lambda process: _belongs_to(folder, process))
    shutil.rmtree(folder, ignore_errors=True)


def after_actor(mark: str, pid: str) -> None:
    end = select.poll()
    try:
        end.register(os.pidfd_open(int(pid)), select.POLLIN)
    except ProcessLookupError:
        return  # before any function has run
    if os.fork():
        os._exit(0)
    end.poll()
    _kill_all(lambda process: _is_marked(mark, process))


def _kill_all(belongs: Callable[[str], bool]) -> None:
    while victims := _processes(belongs):
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.01)


def processes_of(folder: str) -> list[int]:
    """Find the living processes of the Ray cluster whose files are in `folder`."""
    return _processes(lambda process: _belongs_to(folder, process))


def _processes(belongs: Callable[[str], bool]) -> list[int]:
    found = []
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            try:
                if belongs(f"/proc/{pid}"):
                    found.append(int(pid))
            except OSError:
                continue  # it has just ended, or is somebody else's
    return found


def _belongs_to(folder: str, process: str) -> bool:
    """Tell whether a process is of the cluster: it names the folder, or is called ray:: and has a file open there."""
    with open(f"{process}/cmdline", encoding="latin-1") as file:
        command = file.read()
    if not command.startswith("ray::"):
        return "/ray/" in command and folder + "/" in command
    return any(os.readlink(f"{process}/fd/{name}").startswith(folder + "/") for name in os.listdir(f"{process}/fd"))


def _is_marked(mark: str, process: str) -> bool:
    with open(f"{process}/environ", "rb") as file:
        return f"{MARK}={mark}".encode() in file.read().split(b"\0")


if __name__ == "__main__":
    if os.path.isabs(sys.argv[1]):
        after_cluster(sys.argv[1], sys.argv[2])
    else:
        after_actor(sys.argv[1], sys.argv[2])

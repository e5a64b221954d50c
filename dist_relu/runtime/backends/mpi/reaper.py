"""A program that says which rank of a node died first, and how: python reaper.py MARK PID NAME PID NAME ...

When a rank is killed, mpirun kills the others within microseconds, and names any of them. So one rank of each node
starts this program, which mpirun does not know. It waits for the first death, in a session of its own, and says whose
it was. A rank that a signal has stopped would keep the others waiting for ever: it is ended. Where mpirun is out of
reach, the other ranks of the node would go on for ever: it ends them. A dot on its standard input sends it away; an
exclamation mark says that the job ends, and why is known. It imports nothing of the package: it must start at once and
stay small.

MARK: how to begin what is meant for `dist-relu launch`, see `rank_guard`; empty without it.
"""

import contextlib
import fcntl
import os
import select
import signal
import struct
import sys
import time
from collections.abc import Iterable, Mapping

TIME_FOR_MPIRUN_S = 2.0
TIME_FOR_PROXY_S = 0.5
CHECK_PERIOD_S = 1.0
MAX_CHECKS_STOPPED = 10
"""How often a rank may be seen stopped in a row; checks rather than seconds, since we may have been stopped, too."""
TIME_TO_BE_REAPED_S, PAUSE_S = 0.1, 0.002
PROXY = "hydra_pmi_proxy"
PIDFD_GET_INFO, PIDFD_INFO_EXIT = 0xC040FF0B, 1 << 3


def main(mark: str, pids: list[int], names: list[str]) -> None:
    events = select.epoll()  # unlike poll, it tells events in the order in which they came
    events.register(0, select.EPOLLIN)
    processes: dict[int, int] = {}  # descriptors of those that live, by pid
    proxies = set()
    gone = ""
    for pid, name in zip(pids, names, strict=True):
        try:
            processes[pid] = os.pidfd_open(pid)
            proxies.add(proxy_of(pid))
        except (ProcessLookupError, FileNotFoundError):  # it died before we looked
            gone = gone or name
            continue
        events.register(processes[pid], select.EPOLLIN)
    name_of = dict(zip(pids, names, strict=True))  # the first has the other end of our standard input
    proxy_processes = [os.pidfd_open(pid) for pid in proxies if pid]
    with contextlib.suppress(BrokenPipeError):  # whoever started us is dead: we are about to say so
        os.write(1, b".")
    if gone:
        say_death(mark, f"{gone} died")
    else:
        stopped: dict[int, int] = {}
        while not (ready := events.poll(CHECK_PERIOD_S)):
            stopped = stopped_longer(stopped, processes)
            if pid := next((pid for pid, checks in stopped.items() if checks >= MAX_CHECKS_STOPPED), 0):
                seconds = MAX_CHECKS_STOPPED * CHECK_PERIOD_S
                what = f"was stopped by a signal, such as SIGSTOP, and has not gone on for {seconds:g} s"
                say_loss(mark, f"{name_of[pid]} {what}")
                kill([processes[pid]])  # mpirun then ends the others
                break
        else:
            first = ready[0][0]
            word = os.read(0, 1) if first == 0 else b""
            if word == b".":
                return
            if not word:
                pid = next((pid for pid, process in processes.items() if process == first), pids[0])
                say_death(mark, f"{name_of[pid]} {end_of(pid, processes[pid])}")
    for descriptor in (1, 2):
        os.close(descriptor)  # mpirun waits until nobody can write to it any more
    time.sleep(TIME_FOR_MPIRUN_S)
    kill(processes.values())
    time.sleep(TIME_FOR_PROXY_S)
    kill(proxy_processes)  # had they been first, mpirun would complain of them instead


def say_death(mark: str, what: str) -> None:
    """Say how a rank died, unless its guard does."""
    if not mark:
        os.write(2, f"{what}; the job ends.\n".encode())


def say_loss(mark: str, what: str) -> None:
    os.write(2, (f"{mark} lost {what}\n" if mark else f"{what}; the job ends.\n").encode())


def stopped_longer(before: Mapping[int, int], processes: Mapping[int, int]) -> dict[int, int]:
    """Count in how many checks each rank was seen stopped; none where all are: then the job is suspended."""
    stopped = [pid for pid in processes if state_and_code(pid)[0] == "T"]
    return {} if len(stopped) == len(processes) else {pid: before.get(pid, 0) + 1 for pid in stopped}


def end_of(pid: int, process: int) -> str:
    """Tell how a process ended, which is somebody else's child."""
    code = exit_code(pid, process)
    if code is None:
        return "died"
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def exit_code(pid: int, process: int) -> int | None:
    """Ask the kernel: before its parent has reaped it, any kernel knows, and afterwards those since Linux 6.15."""
    deadline = time.monotonic() + TIME_TO_BE_REAPED_S
    while time.monotonic() < deadline:
        state, status = state_and_code(pid)
        if state == "Z":
            return os.waitstatus_to_exitcode(status)
        information = bytearray(struct.pack("Q56x", PIDFD_INFO_EXIT))
        try:
            fcntl.ioctl(process, PIDFD_GET_INFO, information)
        except ProcessLookupError:
            continue  # it is being reaped just now
        except OSError:
            return None
        mask, status = struct.unpack("Q52xi", information)
        if mask & PIDFD_INFO_EXIT:
            return os.waitstatus_to_exitcode(status)
        time.sleep(PAUSE_S)
    return None


def state_and_code(pid: int) -> tuple[str, int]:
    """Read the state of a process, and its exit status where it is a zombie; an empty state when it is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", encoding="latin-1") as file:
        fields = file.read().rpartition(")")[2].split()
        return fields[0], int(fields[49])
    return "", 0


def kill(processes: Iterable[int]) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGKILL)


def proxy_of(pid: int) -> int:
    """Find MPICH's proxy that started a rank, maybe through other programs; 0 if there is none."""
    while (pid := parent_of(pid)) > 1:
        if command_of(pid).startswith(PROXY):
            return pid
    return 0


def parent_of(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="latin-1") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def command_of(pid: int) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm", encoding="latin-1") as file:
        return file.read()
    return ""


if __name__ == "__main__":
    main(sys.argv[1], [int(pid) for pid in sys.argv[2::2]], sys.argv[3::2])

"""A program that says which rank of a node died first: python reaper.py PID NAME PID NAME ...

When a rank is killed, mpirun kills the others within microseconds, and names any of them. So one rank of each node
starts this program, which mpirun does not know. It waits for the first death, in a session of its own, and says whose
it was. Where mpirun is out of reach, the other ranks of the node would go on for ever: it ends them. A dot on its
standard input sends it away; an exclamation mark says that the job ends, and why is known. It imports nothing of the
package: it must start at once and stay small.
"""

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Iterable

TIME_FOR_MPIRUN_S = 2.0
TIME_FOR_PROXY_S = 0.5


def main(pids: list[int], names: list[str]) -> None:
    events = select.epoll()  # unlike poll, it tells events in the order in which they came
    events.register(0, select.EPOLLIN)
    name_of = {0: names[0]}
    parents = set()
    gone = ""
    for pid, name in zip(pids, names, strict=True):
        try:
            descriptor = os.pidfd_open(pid)
            parents.add(parent_of(pid))
        except (ProcessLookupError, FileNotFoundError):  # it died before we looked
            gone = gone or name
            continue
        name_of[descriptor] = name
        events.register(descriptor, select.EPOLLIN)
    proxies = [os.pidfd_open(pid) for pid in parents if command_of(pid).startswith("hydra_pmi_proxy")]
    os.write(1, b".")
    first, _ = (0, 0) if gone else events.poll()[0]
    word = os.read(0, 1) if first == 0 and not gone else b""
    if word == b".":
        return
    if word != b"!":
        os.write(2, f"{gone or name_of[first]} died; the job ends.\n".encode())
    for descriptor in (1, 2):
        os.close(descriptor)  # mpirun waits until nobody can write to it any more
    time.sleep(TIME_FOR_MPIRUN_S)
    kill(descriptor for descriptor in name_of if descriptor)
    time.sleep(TIME_FOR_PROXY_S)
    kill(proxies)  # had they been first, mpirun would complain of them instead


def kill(processes: Iterable[int]) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGKILL)


def parent_of(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def command_of(pid: int) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm", encoding="utf-8") as file:
        return file.read()
    return ""


if __name__ == "__main__":
    main([int(pid) for pid in sys.argv[1::2]], sys.argv[2::2])

"""A program that says which rank of an MPI job died first: python coroner.py PID NAME PID NAME ...

When a rank is killed, mpirun kills the others within microseconds, and names any of them. So rank 0 starts this
program, which mpirun does not know. It waits for the first death, in a session of its own, and says whose it was.
A byte on its standard input sends it away. It imports nothing of the package: it must start at once and stay small.
"""

import os
import select
import sys


def main(pids: list[int], names: list[str]) -> None:
    events = select.epoll()  # unlike poll, it tells events in the order in which they came
    events.register(0, select.EPOLLIN)
    name_of = {0: names[0]}
    for pid, name in zip(pids, names, strict=True):
        descriptor = os.pidfd_open(pid)
        name_of[descriptor] = name
        events.register(descriptor, select.EPOLLIN)
    os.write(1, b".")
    first, _ = events.poll()[0]
    if first == 0 and os.read(0, 1):
        return
    os.write(2, f"{name_of[first]} died; the job ends.\n".encode())


if __name__ == "__main__":
    main([int(pid) for pid in sys.argv[1::2]], sys.argv[2::2])

"""A program that starts a rank of an MPI job, and says how it ended: python rank_guard.py PROGRAM [ARGUMENT ...].

When a rank dies, mpirun ends the job, and names any of its ranks. So `dist-relu launch` puts this program between
mpirun and each rank. As the parent it knows by which signal its rank ended, from the first instruction on, on every
host. mpirun ends a rank by killing its group of processes, to which this program belongs: who still speaks was the
first. What it says are lines on its standard error that begin with the content of VARIABLE, by which `dist-relu launch`
knows them; it starts rank and guard with that in their environment. It imports nothing of the package: it must start
at once and stay small.
"""

import contextlib
import ctypes
import os
import resource
import signal
import socket
import sys
from typing import NoReturn

VARIABLE = "DIST_RELU_LAUNCHED"
LIMIT_VARIABLE = "DIST_RELU_START_TIMEOUT"
"""Its content: for how many seconds a rank of such a job may wait for others while it starts."""
RANK_VARIABLES = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK")
PR_SET_PDEATHSIG = 1


def main(command: list[str]) -> NoReturn:
    rank = next((os.environ[name] for name in RANK_VARIABLES if name in os.environ), "?")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: None)  # mpirun sends them to the whole group, and they are for the rank
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        become(command, parent)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        tell(f"ended {rank} {socket.gethostname()} {pid} {code}")
        clear_up(os.getppid())
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 128 - code)


def become(command: list[str], parent: int) -> NoReturn:
    """Become the rank, which ends with its guard."""
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() == parent:
            os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def clear_up(proxy: int) -> None:
    """Remove the file that MPICH's proxy leaves behind when a rank dies early; later its watchdog does that."""
    folder = f"/proc/{proxy}/fd"
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                path = os.readlink(f"{folder}/{name}")
                if "/hydra_hwloc_xmlfile_" in path:
                    os.unlink(path)


def tell(what: str) -> None:
    """Let `dist-relu launch` know, if that has started the job."""
    if mark := os.environ.get(VARIABLE):
        os.write(2, f"{mark} {what}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1:])

"""How the ranks of a node are reaped: by a program that one of them starts, see `reaper`."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from typing import NoReturn

from dist_relu.runtime.backends.mpi import rank_guard, reaper
from dist_relu.runtime.backends.mpi.launcher import launched
from dist_relu.runtime.backends.mpi.membership import abort_job
from dist_relu.runtime.backends.mpi.messages import NodeProcesses


def start_reaper(processes: NodeProcesses) -> subprocess.Popen[bytes]:
    """Watch over the ranks of this node; see `dist_relu.runtime.backends.mpi.reaper`."""
    texts = [text for pid, name in zip(processes.pids, processes.names, strict=True) for text in (str(pid), name)]
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", reaper.__file__, os.environ.get(rank_guard.VARIABLE, ""), *texts],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.read(1)  # now it knows them all
    return process


def kill_job(reaper_of_node: subprocess.Popen[bytes] | None) -> NoReturn:
    """End all ranks of the job; those of this node even if mpirun is out of reach."""
    if reaper_of_node and reaper_of_node.stdin:
        with suppress(OSError):
            reaper_of_node.stdin.write(b"!")
            reaper_of_node.stdin.flush()
    try:
        abort_job(launched())
    finally:
        os._exit(1)

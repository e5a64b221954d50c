"""Memory: how much there is, and whether the processes of a node can share it.

See `dist_relu.comm.shared_memory`: shared arrays are files without names, opened by others through /proc/PID/fd.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path

from dist_relu.comm.shared_memory import SharedArray
from dist_relu.doctor.finding import Finding, State, size
from dist_relu.doctor.programs import Outcome, run_program

_TRIAL_SIZE = 1 << 18
_TIMEOUT_S = 60.0
_ATTACH = """
import sys
import numpy as np
from dist_relu.comm.shared_memory import Handle, attach
pid, descriptor, inode, size = map(int, sys.argv[1:])
attach(Handle(pid, descriptor, inode, (size,), np.dtype(np.float32)))[-1] = 1
"""
_GET_DUMPABLE = 3


def check_memory(available_bytes: float, limit_bytes: float) -> Finding:
    """Check whether there is room for models and data.  limit_bytes: by control group, infinite for none."""
    numbers: dict[str, float] = {"available_bytes": available_bytes}
    found = f"{size(available_bytes)} available"
    if limit_bytes < inf:
        numbers["limit_bytes"] = limit_bytes
        found += f"; the container's limit is {size(limit_bytes)}, and shared memory counts"
    advice = "End other programs, or raise the limit: docker run --memory, resources.limits.memory, sbatch --mem."
    if available_bytes < 256e6:
        return Finding("memory", State.FAILURE, f"{found}: too little to start workers.", advice, numbers)
    if available_bytes < 1e9:
        return Finding("memory", State.WARNING, f"{found}: enough for small models only.", advice, numbers)
    return Finding("memory", State.NOTE if limit_bytes < inf else State.OK, f"{found}.", "", numbers)


def check_dev_shm(shm_bytes: float | None) -> Finding:
    """Check what the size of /dev/shm means.  shm_bytes: None where there is none."""
    ours = "Our own shared memory does not live there, so that it is no limit to training."
    if shm_bytes is None:
        found = f"There is no /dev/shm. {ours} MPI libraries and Ray need it."
        return Finding("/dev/shm", State.WARNING, found, "mount -t tmpfs tmpfs /dev/shm")
    numbers = {"size_bytes": shm_bytes}
    if shm_bytes < 1 << 30:
        found = f"/dev/shm has {size(shm_bytes)}. {ours} Ray's object store wants more than that."
        return Finding("/dev/shm", State.NOTE, found, "For Ray: docker run --shm-size=2g, or shm_size: 2g.", numbers)
    return Finding("/dev/shm", State.OK, f"{size(shm_bytes)}. {ours}", "", numbers)


def dev_shm_bytes() -> float | None:
    """Return the size of /dev/shm, None where there is none."""
    try:
        status = os.statvfs("/dev/shm")
    except OSError:
        return None
    return float(status.f_blocks * status.f_frsize)


def check_memfd() -> Finding:
    """Check whether shared arrays can be made."""
    try:
        shared = SharedArray((_TRIAL_SIZE,), "float32")
        shared.array[:] = 1
    except (OSError, MemoryError) as error:
        found = f"A shared array can't be made: {error}."
        advice = "Workers need memfd_create: see the container's seccomp profile, and ulimit -f and -v."
        return Finding("shared memory", State.FAILURE, found, advice)
    return Finding("shared memory", State.OK, "memfd works; a killed run leaves nothing behind.")


@dataclass(frozen=True)
class ProcfsFacts:
    """What can keep a process from opening another's files in /proc.

    options: with which /proc is mounted.  dumpable: see prctl(2).  ptrace_scope: of Yama, None without it.
    """

    options: str
    dumpable: bool
    ptrace_scope: str | None
    user: int

    @classmethod
    def here(cls) -> ProcfsFacts:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
        options = next((mount[3] for mount in mounts if mount[1] == "/proc"), "not mounted")
        try:
            scope = Path("/proc/sys/kernel/yama/ptrace_scope").read_text().strip()
        except OSError:
            scope = None
        return cls(options, ctypes.CDLL(None).prctl(_GET_DUMPABLE) == 1, scope, os.getuid())


def check_procfs(outcome: Outcome, facts: ProcfsFacts) -> Finding:
    """Check whether a process can open a shared array of another one.  outcome: of `attach_from_outside`."""
    if outcome.code == 0:
        return Finding("procfs", State.OK, "Another process could open a shared array through /proc/PID/fd.")
    found = f"A process can't open a shared array of another one through /proc/PID/fd: {outcome.complaint}."
    causes = []
    if "hidepid" in facts.options:
        causes.append(f"/proc is mounted with {facts.options}: mount it without hidepid, or let gid= name your group.")
    if facts.options == "not mounted":
        causes.append("Mount /proc.")
    if not facts.dumpable:
        causes.append("This process may not be inspected (not dumpable): do not start it setuid or with capabilities.")
    if facts.ptrace_scope not in (None, "0", "1"):
        causes.append(f"kernel.yama.ptrace_scope is {facts.ptrace_scope}: set it to 1 or 0.")
    causes.append(f"All processes of a run must belong to one user (here {facts.user}) and one PID namespace.")
    return Finding("procfs", State.FAILURE, found, " ".join(causes))


def attach_from_outside(environment: Mapping[str, str]) -> Outcome:
    """Make a shared array, and let another process open and change it."""
    shared = SharedArray((_TRIAL_SIZE,), "float32")
    handle = shared.handle
    numbers = map(str, (handle.pid, handle.descriptor, handle.inode, _TRIAL_SIZE))
    outcome = run_program([sys.executable, "-P", "-c", _ATTACH, *numbers], _TIMEOUT_S, environment)
    if outcome.code == 0 and shared.array[-1] != 1:
        return Outcome(1, "", "what it wrote did not arrive")
    return outcome


def check_resource_limits(limits: Mapping[str, int]) -> Finding:
    """Check whether this shell's limits leave room.  limits: by letter of ulimit, as the kernel gives them."""
    needs = {"n": 256, "v": 4 << 30, "f": 4 << 30, "u": 64}
    names = {"n": "open files", "v": "address space", "f": "file size, which shared memory counts as", "u": "processes"}
    low = [letter for letter, limit in limits.items() if limit != resource.RLIM_INFINITY and limit < needs[letter]]
    if low:
        found = "; ".join(f"{names[letter]}: {limits[letter]:,}" for letter in low)
        advice = f"{' '.join(f'ulimit -{letter} unlimited;' for letter in low)} or as much as your system allows."
        return Finding("ulimit", State.WARNING, f"Low limits: {found}.", advice, dict(limits))
    return Finding("ulimit", State.OK, "Room for files, processes and memory.", "", dict(limits))


def resource_limits() -> dict[str, int]:
    """Return the limits of this process, by letter of ulimit."""
    kinds = {
        "n": resource.RLIMIT_NOFILE,
        "v": resource.RLIMIT_AS,
        "f": resource.RLIMIT_FSIZE,
        "u": resource.RLIMIT_NPROC,
    }
    return {letter: resource.getrlimit(kind)[0] for letter, kind in kinds.items()}

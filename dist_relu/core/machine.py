"""What this machine is: its cores, its processor, its BLAS."""

from __future__ import annotations

import fcntl
import os
import platform
import signal
import struct
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from itertools import zip_longest
from pathlib import Path

from threadpoolctl import threadpool_info

from dist_relu.core import cgroups

_PIDFD_GET_INFO = 0xC040FF0B
"""_IOWR(0xFF, 11, struct pidfd_info), of the 64 bytes that the struct had at first; its last field is the status."""

_PIDFD_INFO_EXIT = 1 << 3


def num_cores() -> int:
    """The physical cores that this process may use: by its affinity and by its container's limit."""
    return max(int(min(count_cores(os.sched_getaffinity(0)), cgroups.cpu_limit())), 1)


def count_cores(cpus: Iterable[int]) -> int:
    """How many physical cores these CPUs are hardware threads of."""
    return len(set(map(_core_of, cpus)))


def last_cpus(number: int) -> list[int]:
    """So many of the CPUs that this process may use: the last ones by number, but no two of a core before all have one.

    Fewer where there are not as many.
    """
    of_cores: dict[tuple[str, ...], list[int]] = {}
    for cpu in sorted(os.sched_getaffinity(0), reverse=True):
        of_cores.setdefault(_core_of(cpu), []).append(cpu)
    in_turns = [cpu for turn in zip_longest(*of_cores.values()) for cpu in turn if cpu is not None]
    return in_turns[:number]


def _core_of(cpu: int) -> tuple[str, ...]:
    """What a physical core is named by; a CPU that the kernel tells nothing of counts as one."""
    topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
    try:
        return tuple((topology / part).read_text() for part in ("physical_package_id", "core_id"))
    except OSError:
        return (str(cpu),)


def available_memory_bytes() -> int:
    """How much memory this process may still use: by the machine and by its container's limit."""
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024
    return int(min(available, cgroups.available_memory_bytes()))


def how_it_ended(code: int) -> str:
    """What is to be told of a process that ended with `code`, which is negative for a signal, as in `subprocess`."""
    return f"exited with code {code}" if code >= 0 else f"was killed by signal {-code} ({signal.strsignal(-code)})"


def is_stopped(pid: int) -> bool:
    """Whether a process stands still because of SIGSTOP or its kin; a debugger's processes do not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"T"
    except OSError:
        return False  # it has ended


def cpu_ticks(pid: int) -> int:
    """How much processor time all threads of a process have used, in the kernel's hundredths of a second."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0  # it has ended
    return int(fields[11]) + int(fields[12])


def exit_code(process: int) -> int | None:
    """With what code a process that has ended did end, by its pidfd; it need not be a child.

    Negative for a signal. None when the kernel does not tell; it does since Linux 6.15.
    """
    information = bytearray(struct.pack("Q56x", _PIDFD_INFO_EXIT))
    try:
        fcntl.ioctl(process, _PIDFD_GET_INFO, information)
    except OSError:
        return None
    mask, status = struct.unpack("Q52xi", information)
    return os.waitstatus_to_exitcode(status) if mask & _PIDFD_INFO_EXIT else None


def cpu_name() -> str:
    """The processor's name, as the kernel gives it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def blas_name() -> str:
    """NumPy's BLAS with its version and kernel, for instance "openblas 0.3.31 (SkylakeX)"."""
    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    for library in sorted(libraries, key=lambda library: "numpy" not in library["filepath"]):  # SciPy brings its own
        return f"{library['internal_api']} {library['version']} ({library.get('architecture', 'unknown kernel')})"
    return "unknown"


def versions() -> dict[str, str]:
    """The versions that decide about bits."""
    packages = ("dist_relu", "numpy", "numba")
    return {"python": platform.python_version(), **{name: _version(name) for name in packages}}


@cache
def _version(package: str) -> str:
    """The version of a package; to look it up takes a good part of a millisecond."""
    return metadata.version(package)

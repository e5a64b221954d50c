"""What this machine is: its cores, its processor, its BLAS."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

from threadpoolctl import threadpool_info


def num_cores() -> int:
    """The physical cores that this process may use: by its affinity and by its container's limit."""
    cores = set()
    for cpu in os.sched_getaffinity(0):
        topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
        try:
            cores.add(tuple((topology / part).read_text() for part in ("physical_package_id", "core_id")))
        except OSError:
            cores.add((str(cpu),))
    return max(min(len(cores), int(_cgroup_limit())), 1)


def _cgroup_limit() -> float:
    """How many CPUs this process's control group may use; infinite without a limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return 1e9
    return 1e9 if quota == "max" else int(quota) / int(period)


def available_memory_bytes() -> int:
    """How much memory this process may still use: by the machine and by its container's limit."""
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        statistics = dict(line.split() for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines())
        used -= int(statistics.get("inactive_file", 0))  # what files left in the cache goes when room is needed
    except (OSError, ValueError):
        return available
    return available if limit == "max" else min(available, int(limit) - used)


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
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}

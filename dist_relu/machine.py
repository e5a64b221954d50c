"""What this machine is: its cores, its processor, its BLAS."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

from threadpoolctl import threadpool_info

from dist_relu import control_groups


def num_cores() -> int:
    """The physical cores that this process may use: by its affinity and by its container's limit."""
    cores = set()
    for cpu in os.sched_getaffinity(0):
        topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
        try:
            cores.add(tuple((topology / part).read_text() for part in ("physical_package_id", "core_id")))
        except OSError:
            cores.add((str(cpu),))
    return max(int(min(len(cores), control_groups.cpu_limit())), 1)


def available_memory_bytes() -> int:
    """How much memory this process may still use: by the machine and by its container's limit."""
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024
    return int(min(available, control_groups.available_memory_bytes()))


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

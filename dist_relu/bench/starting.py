"""How long programs take to begin: an import, a command's help, and trainings that have their kernels to compile."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from dist_relu.errors import BackendError

_HERE = Path(__file__).parents[2]
"""Where Python finds this package, also if it is not installed."""

_TRAIN = ["-m", "dist_relu", "train", "--epochs", "1", "--batch-size", "2000", "--quiet"]
"""The command for an epoch that is a single step."""

_PROGRAMS = {
    "import dist_relu": ["-c", "import dist_relu"],
    "dist-relu --help": ["-m", "dist_relu", "--help"],
}
_MODELS = ("mlp:64", "cnn")


@dataclass(frozen=True)
class Beginning:
    """The median time of a program from start to end, in seconds."""

    program: str
    seconds: float


def run(rounds: int) -> Iterator[list[Beginning]]:
    """Time programs that do little, and trainings of one step, first without compiled kernels and then with them.

    Yields all that was measured after each program.
    """
    times: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, arguments in _PROGRAMS.items():
            times.setdefault(name, []).append(_seconds(arguments))
            yield _medians(times)
        for model in _MODELS:
            with tempfile.TemporaryDirectory() as cache:
                for state in ("nothing is compiled", "all is compiled"):
                    seconds = _seconds([*_TRAIN, "--model", model], NUMBA_CACHE_DIR=cache)
                    times.setdefault(f"one step of {model}, {state}", []).append(seconds)
                    yield _medians(times)


def _medians(times: Mapping[str, Sequence[float]]) -> list[Beginning]:
    return [Beginning(name, float(np.median(seconds))) for name, seconds in times.items()]


def _seconds(arguments: list[str], **variables: str) -> float:
    """Run a program of Python's.  Raises BackendError where it fails."""
    begin = perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=_HERE,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "", **variables},  # modules of a package are compiled, too
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,  # Ctrl-C is for who measures
    )
    try:
        _, errors = process.communicate()
    except BaseException:
        process.terminate()  # killed, it would leave workers behind for a moment, which write into the cache
        process.communicate()
        raise
    if process.returncode:
        last = (errors.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        raise BackendError(f"{shlex.join(['python', *arguments])} failed: {last}")
    return perf_counter() - begin

"""Running a program to see whether it works, without being hurt when it does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

_GRACE_S = 3.0


@dataclass(frozen=True)
class Outcome:
    """How a program ended.  code: negative for a signal, None when it took too long and was ended."""

    code: int | None
    output: str
    errors: str

    @property
    def complaint(self) -> str:
        """Return what it complained about at last, or how it ended."""
        lines = [line.strip().rstrip(".") for line in self.errors.splitlines() if any(map(str.isalnum, line))]
        if self.code is None:
            return "it did not end in time"
        if self.code < 0:
            return f"it was killed by signal {-self.code} ({signal.strsignal(-self.code)})"
        return lines[-1] if lines else f"it ended with exit code {self.code}"


def run_program(command: Sequence[str], timeout_s: float, environment: Mapping[str, str] | None = None) -> Outcome:
    """Run a program in a session of its own; whatever happens, its process group is gone afterwards."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=timeout_s)
        return Outcome(process.returncode, output, errors)
    except subprocess.TimeoutExpired:
        _end(process)
        output, errors = process.communicate()
        return Outcome(None, output, errors)
    finally:
        _end(process)


def run_module(module: str, timeout_s: float, environment: Mapping[str, str] | None = None) -> Outcome:
    """Run one of our own modules as a program, with this Python and its paths."""
    environment = os.environ if environment is None else environment
    path = os.pathsep.join(path or os.getcwd() for path in sys.path)
    return run_program([sys.executable, "-P", "-m", module], timeout_s, {**environment, "PYTHONPATH": path})


def _end(process: subprocess.Popen[str]) -> None:
    """Ask it to end first, so that mpirun can end its ranks; then kill what is left of the process group."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)

"""Signals at random moments of a run, from its first instruction to its last: nothing hangs, and nothing is left.

A run that fails can be had again by its number: pytest -m chaos tests/long/test_signals.py -k "mpi and 17".
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cases import chaos, long
from tests.programs import TRAIN, marked_environment, mpirun, processes_with, shared_files, unused_files

NUM_RUNS, NUM_RUNS_IN_CI = 70, 1
"""On each backend."""

LONGEST_END_S = 60.0
TIME_TO_CLEAR_UP_S = 5.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
RUN = [*TRAIN, "--data", "digits", "--epochs", "3", "--workers", "2"]
COMMANDS = {
    "local": [*RUN, "--backend", "local"],
    "mpi": mpirun(2, *RUN),
    "ray": [*RUN, "--backend", "ray"],
}


@dataclass(frozen=True)
class Started:
    """A run that goes on.  mark: stands in the environment of all its processes."""

    program: subprocess.Popen[bytes]
    mark: str
    errors: Path

    @classmethod
    def here(cls, backend: str, folder: Path) -> Started:
        mark = uuid.uuid4().hex
        temporary = folder / "tmp"
        temporary.mkdir()
        with (folder / "output").open("wb") as output, (folder / "errors").open("wb") as errors:
            program = subprocess.Popen(
                COMMANDS[backend],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                cwd=folder,
                env={**marked_environment(mark), "TMPDIR": str(temporary)},
                start_new_session=True,
            )
        return cls(program, mark, folder / "errors")

    def workers(self) -> list[int]:
        """The processes that compute: ranks, local workers or actors, so far as there are any yet."""
        return [pid for pid in sorted(processes_with(self.mark)) if pid != self.program.pid and _is_worker(pid)]


def _is_worker(pid: int) -> bool:
    with suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        return not command.startswith(b"ray::IDLE") if command.startswith(b"ray::") else b"python" in command
    return False


TARGETS: dict[str, Callable[[Started, int], None]] = {
    "program": lambda run, number: run.program.send_signal(number),
    "group": lambda run, number: os.killpg(run.program.pid, number),
    "worker 0": lambda run, number: _to_worker(run, 0, number),
    "worker 1": lambda run, number: _to_worker(run, 1, number),
}


def _to_worker(run: Started, index: int, number: int) -> None:
    for worker in run.workers()[index : index + 1]:
        with suppress(ProcessLookupError):
            os.kill(worker, number)


@pytest.fixture(scope="module", params=sorted(COMMANDS))
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, float]:
    """A backend, and the seconds that a run takes there which nobody disturbs."""
    for _ in range(2):  # the first may have to compile kernels
        began_s = time.monotonic()
        run = Started.here(request.param, tmp_path_factory.mktemp("whole"))
        assert run.program.wait(300) == 0, run.errors.read_text()
        seconds = time.monotonic() - began_s
    return request.param, seconds


@pytest.mark.parametrize("number", [*long(*range(NUM_RUNS_IN_CI)), *chaos(*range(NUM_RUNS_IN_CI, NUM_RUNS))])
def test_a_run_that_gets_a_signal_ends_and_leaves_nothing(
    whole: tuple[str, float], number: int, tmp_path: Path
) -> None:
    backend, seconds = whole
    choose = random.Random(f"{backend} {number}")
    moment_s, target, sent = choose.uniform(0, seconds), choose.choice(sorted(TARGETS)), choose.choice(SIGNALS)
    before = shared_files()
    run = Started.here(backend, tmp_path)
    what = f"{sent.name} to {target} after {moment_s:.2f} of {seconds:.2f} s"
    try:
        time.sleep(moment_s)
        with suppress(ProcessLookupError):  # it may have been quick
            TARGETS[target](run, sent)
        try:
            run.program.wait(LONGEST_END_S)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{what}: it hangs. {names(processes_with(run.mark))} {said(run)}")
        assert not still_there(lambda: names(processes_with(run.mark))), f"{what}: processes are left. {said(run)}"
        assert not still_there(lambda: unused_files(before)), f"{what}: files. {said(run)}"
        assert not still_there(lambda: sorted((tmp_path / "tmp").rglob("*"))), f"{what}: files. {said(run)}"
    finally:
        for pid in processes_with(run.mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def still_there(look: Callable[[], list[str] | list[Path]]) -> list[str] | list[Path]:
    """What `look` finds, after the time that there is to clear up."""
    deadline = time.monotonic() + TIME_TO_CLEAR_UP_S
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def names(pids: list[int]) -> list[str]:
    found = []
    for pid in pids:
        with suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            found.append(f"{pid}: {command[:150]}")
    return found


def said(run: Started) -> str:
    return f"It said: {run.errors.read_text(errors='replace')[-2000:]!r}"

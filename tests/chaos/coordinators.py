"""The process of the user's script is killed, and what it was at is gone on with from its last checkpoint."""

from __future__ import annotations

import json
import random
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

from tests.chaos.strikes import workers_of
from tests.chaos.table import Row
from tests.programs import TIMEOUT_S, TRAIN, marked_environment, processes_with, shared_files, unused_files

TIME_TO_END_S = 5.0
_RUN = [*TRAIN, "--model", "mlp:256,128", "--shards", "4", "--seed", "5", "--every", "20steps", "--resume"]
_RUN += ["--epochs", "40", "--optimizer", "adamw", "--clip-norm", "1"]


def kill_coordinator(backend: str, number: int, row: Row) -> None:
    """Kill a training's first process, see that all others end, and go on.  number: from which the moment is drawn."""
    choose = random.Random(number)
    with tempfile.TemporaryDirectory() as folder:
        undisturbed = _digest(["--checkpoint", f"{folder}/undisturbed"], "serial", 1, folder)
        run = ["--checkpoint", f"{folder}/run"]
        files, mark = shared_files(), uuid.uuid4().hex
        program = _start(run, backend, 3, mark)
        _wait_for_checkpoint(Path(folder) / "run")
        time.sleep(choose.uniform(0, 0.5))
        program.kill()
        program.wait()
        killed = time.monotonic()
        while left := _left(backend, mark):
            if time.monotonic() > killed + TIME_TO_END_S:
                row.troubles.append(f"{row.disturbance}: {left} live on after {TIME_TO_END_S} s")
                break
            time.sleep(0.01)
        seconds = time.monotonic() - killed
        if not left and (leaked := unused_files(files)):
            row.troubles.append(f"{row.disturbance}: left behind {leaked}")
        row.note(1, _digest(run, backend, choose.randint(1, 4), folder), undisturbed, [seconds])


def _start(options: list[str], backend: str, workers: int, mark: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*_RUN, *options, "--backend", backend, "--workers", str(workers)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        env=marked_environment(mark),
    )


def _digest(options: list[str], backend: str, workers: int, folder: str) -> str | None:
    """Run to the end; returns the digest of the parameters."""
    report = Path(folder) / "report.json"
    report.unlink(missing_ok=True)
    program = _start([*options, "--json", str(report)], backend, workers, uuid.uuid4().hex)
    if program.wait(TIMEOUT_S) != 0:
        return None
    digest: str = json.loads(report.read_text())["params_sha256"]
    return digest


def _wait_for_checkpoint(folder: Path) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not list(folder.glob("step-*")):
        assert time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.01)


def _left(backend: str, mark: str) -> list[int]:
    return processes_with(mark) if backend == "local" else [*processes_with(mark), *workers_of(backend)]

"""Ranks of an MPI job are killed at random moments, and `dist-relu launch` brings it to the bits of an undisturbed one.

A run that fails can be had again by its number: pytest -m chaos tests/long/test_launch.py -k "-7".
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

import pytest

from dist_relu.run.checkpoints import checkpoint_files
from tests.cases import chaos
from tests.programs import TIMEOUT_S, marked_environment, processes_with, shared_files, unused_files, wait_until

NUM_RUNS, KILLS_IN_A_RUN = 10, 3
LAST_STEP, START_S = 1400, 4.0
"""Before that step a rank is killed, so that the run is not over, or while so many seconds pass in which it starts."""

RANKS = 3
LAUNCH = [sys.executable, "-m", "dist_relu", "launch", "-n", str(RANKS), "--"]
TRAIN = ["train", "--data", "mnist", "--model", "mlp:64", "--epochs", "2", "--shards", "4", "--seed", "5"]
TRAIN += ["--every", "20steps", "--checkpoint", "run", "--json", "report.json"]


def start(folder: Path, mark: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*LAUNCH, *TRAIN],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=marked_environment(mark),
    )


def last_step(folder: Path) -> int:
    """The step of the last checkpoint."""
    return max((step for step, _ in checkpoint_files(folder / "run")), default=-1)


def digest(folder: Path) -> str:
    return str(json.loads((folder / "report.json").read_text())["params_sha256"])


def ranks(mark: str) -> list[int]:
    """The ranks that live, from the first moment on; their guards and watchdogs are other programs."""
    found = []
    for pid in set(processes_with(mark)) & set(processes_with("PMI_RANK=")):
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"train" in words and not any(b"rank_guard" in word for word in words):
                found.append(pid)
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of a run that nobody disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    program = start(folder, uuid.uuid4().hex)
    _, errors = program.communicate(timeout=TIMEOUT_S)
    assert program.returncode == 0, errors
    return digest(folder)


@pytest.mark.parametrize("run", chaos(*range(NUM_RUNS)))
def test_a_run_whose_ranks_are_killed_ends_with_the_bits_of_an_undisturbed_one(
    tmp_path: Path, undisturbed: str, run: int
) -> None:
    rng = random.Random(run)
    before, mark = shared_files(), uuid.uuid4().hex
    killed: set[int] = set()
    with start(tmp_path, mark) as program:
        for step in sorted(rng.randrange(-LAST_STEP // 2, LAST_STEP) for _ in range(KILLS_IN_A_RUN)):
            wait_until(lambda: bool(set(ranks(mark)) - killed) or program.poll() is not None)
            if step < 0:
                time.sleep(rng.uniform(0, START_S))
            else:
                while last_step(tmp_path) < step and program.poll() is None:
                    time.sleep(0.01)
            if living := ranks(mark):
                victim = rng.choice(living)
                with suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
                    killed.add(victim)
        _, errors = program.communicate(timeout=TIMEOUT_S)
    assert program.returncode == 0, errors
    assert digest(tmp_path) == undisturbed, errors
    named = [pid for pid in killed if f"pid {pid}) was killed by signal 9" in errors]
    assert len(named) == len(killed) == errors.count("Starting again"), errors
    wait_until(lambda: not processes_with(mark))
    wait_until(lambda: not unused_files(before))

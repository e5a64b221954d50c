"""A run is ended by a signal at a random moment and goes on elsewhere: it comes to the bits that it would have come to.

A run that fails can be had again by its number: pytest -m chaos tests/long/test_resume.py -k "-17".
"""

from __future__ import annotations

import json
import os
import random
import re
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
from tests.programs import TIMEOUT_S, TRAIN, marked_environment, processes_with, shared_files, unused_files

NUM_RUNS, NUM_RUNS_IN_CI = 30, 1
TIME_TO_CLEAR_UP_S = 5.0
CODES = {signal.SIGINT: (130,), signal.SIGTERM: (143, -signal.SIGTERM), signal.SIGKILL: (-signal.SIGKILL,)}
"""How a run ends that gets a signal; SIGTERM kills a Python that is not up yet."""
RUN = [*TRAIN, "--data", "mnist", "--model", "mlp:64", "--epochs", "2", "--shards", "4", "--seed", "5", "--every"]
RUN += ["20steps", "--resume"]


@dataclass(frozen=True)
class Place:
    """Here runs are started, with a folder of checkpoints and one for temporary files."""

    folder: Path
    mark: str

    @classmethod
    def at(cls, folder: Path) -> Place:
        (folder / "tmp").mkdir()
        return cls(folder, uuid.uuid4().hex)

    def start(self, workers: int) -> subprocess.Popen[str]:
        """Start the run, or go on with it.  All of its processes are a group."""
        options = ["--checkpoint", str(self.folder / "run"), "--json", str(self.folder / "report.json")]
        return subprocess.Popen(
            [*RUN, *options, "--backend", "local", "--workers", str(workers)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**marked_environment(self.mark), "TMPDIR": str(self.folder / "tmp")},
            start_new_session=True,
        )

    def run(self, workers: int) -> str:
        """Run to the end; returns the digest of the parameters."""
        program = self.start(workers)
        said, _ = program.communicate(timeout=TIMEOUT_S)
        assert program.returncode == 0, said
        digest: str = json.loads((self.folder / "report.json").read_text())["params_sha256"]
        return digest

    def leftovers(self, before: set[str]) -> list[str]:
        """What is there that should not be: processes, shared memory, temporary files.  before: what was there."""
        names = [path.name for path in (self.folder / "run").glob("*")]
        odd = [name for name in names if not re.fullmatch(r"run\.json|step-\d{9}\.safetensors", name)]
        temporary = [str(path) for path in (self.folder / "tmp").rglob("*")]
        return [*map(str, processes_with(self.mark)), *unused_files(before), *temporary, *odd]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, float]:
    """The digest of a run that nobody disturbs, and the seconds that it takes."""
    for name in ("first", "second"):  # the first may have to compile kernels
        began_s = time.monotonic()
        digest = Place.at(tmp_path_factory.mktemp(name)).run(2)
        seconds = time.monotonic() - began_s
    return digest, seconds


@pytest.mark.parametrize("number", [*long(*range(NUM_RUNS_IN_CI)), *chaos(*range(NUM_RUNS_IN_CI, NUM_RUNS))])
def test_a_run_that_was_ended_goes_on_to_the_same_bits(
    undisturbed: tuple[str, float], number: int, tmp_path: Path
) -> None:
    digest, seconds = undisturbed
    choose = random.Random(number)
    moment_s, sent = choose.uniform(0, seconds), [*CODES][number % len(CODES)]
    workers, later = choose.sample([1, 2, 3], 2)
    place, before = Place.at(tmp_path), shared_files()
    program = place.start(workers)
    what = f"{sent.name} to the group of {workers} workers after {moment_s:.2f} of {seconds:.2f} s"
    try:
        time.sleep(moment_s)
        with suppress(ProcessLookupError):  # it may have been quick
            os.killpg(program.pid, sent)
        said, _ = program.communicate(timeout=TIMEOUT_S)
        assert program.returncode in (0, *CODES[sent]), f"{what}: {said}"
        assert not still_there(lambda: place.leftovers(before)), f"{what}: {said}"
        assert place.run(later) == digest, what
        assert not still_there(lambda: place.leftovers(before)), what
    finally:
        for pid in processes_with(place.mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def still_there(look: Callable[[], list[str]]) -> list[str]:
    """What `look` finds, also after a moment."""
    deadline = time.monotonic() + TIME_TO_CLEAR_UP_S
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found

"""Running programs as a user would, and looking at what they leave behind."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from dist_relu.runtime.backends.mpi.backend import mpirun_path

ROOT = Path(__file__).parent.parent
TRAIN = [sys.executable, str(ROOT / "scripts" / "train.py")]
CONFORMANCE = str(ROOT / "tests" / "conformance")
UNDER_MPI = [sys.executable, str(ROOT / "tests" / "under_mpi.py")]
ON_RAY = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(ROOT), "--on-ray", CONFORMANCE]
"""The conformance suite on the ranks of a job, or on all CPUs of a cluster; options of pytest may follow."""

TIMEOUT_S = 600.0
"""After which a program is taken to hang, however busy the machine is."""


def mpirun(ranks: int, *program: str) -> list[str]:
    return [mpirun_path(), "-n", str(ranks), *program]


def mpirun_on_nodes(nodes: str, *program: str) -> list[str]:
    """mpirun with ranks that count as those of several nodes: one letter for each rank, the name of its node."""
    ranks = [[":", "-n", "1", "-env", "DIST_RELU_NODE", node, *program] for node in nodes]
    return [mpirun_path(), *list(itertools.chain(*ranks))[1:]]


def run(
    command: list[str], cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, cwd=cwd, env=env, check=False)


def processes_with(mark: str) -> list[int]:
    """The living processes in whose environment `mark` stands, zombies apart."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue  # it has just ended, or is somebody else's
    return found


def marked_environment(mark: str) -> dict[str, str]:
    return {**os.environ, "DIST_RELU_TEST_MARK": mark}


def shared_files() -> set[str]:
    """What lies where processes of a machine share memory, and where MPI leaves files, whatever TMPDIR is."""
    found = {str(path) for pattern in ("/dev/shm/*", "/tmp/hydra_*") for path in Path("/").glob(pattern[1:])}
    return {path for path in found if not Path(path).name.startswith("joblib_")}  # of tests that go on meanwhile


def unused_files(before: set[str]) -> list[str]:
    """The shared files that are new, and that no process has open: what another program uses is its own."""
    new = shared_files() - before
    used = set()
    for folder in Path("/proc").glob("[0-9]*") if new else ():
        with suppress(OSError):
            maps = (folder / "maps").read_text(errors="replace")
            used |= {path for path in new if path in maps}
            used |= new & {os.readlink(descriptor) for descriptor in (folder / "fd").iterdir()}
    return sorted(new - used)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for `condition`, which must come true."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def wait_for_line(process: subprocess.Popen[str], beginning: str) -> None:
    """Read what a program says until a line that begins like this, which must come."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        if line.startswith(beginning):
            return
        said.append(line)
    raise AssertionError(f"it ended without a word of {beginning!r}: {''.join(said)}")

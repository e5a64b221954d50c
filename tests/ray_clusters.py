"""Ray clusters for tests: on the loopback address, each in a folder and with a token of its own."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dist_relu.backends.undertaker import processes_of
from tests.programs import TIMEOUT_S

RAY = str(Path(sys.executable).parent / "ray")


@dataclass(frozen=True)
class RayCluster:
    """What `ray start --head` left.  environment: of programs that are to find it."""

    address: str
    environment: dict[str, str]


def environment(folder: str, **variables: str) -> dict[str, str]:
    """The variables for a user who has just installed Ray, and whose home and temporary folders are in `folder`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {**inherited, "HOME": folder, "RAY_TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0", **variables}


@contextmanager
def temporary_folder() -> Iterator[str]:
    """A folder whose name is short enough for Ray's sockets."""
    folder = tempfile.mkdtemp(prefix="relu_", dir="/tmp")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def ray_start(num_cpus: int, **variables: str) -> Iterator[RayCluster]:
    """A cluster as `ray start --head` leaves it, until the end of the block."""
    with temporary_folder() as folder:
        own = (
            environment(
                folder,
                RAY_AUTH_MODE="token",
                RAY_AUTH_TOKEN=secrets.token_hex(32),
                RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",  # by this Ray stays on the loopback address
            )
            | variables
        )
        start = [RAY, "start", "--head", "--node-ip-address=127.0.0.1", "--port=0", f"--num-cpus={num_cpus}"]
        try:
            done = subprocess.run(
                [*start, "--include-dashboard=false"],
                env=own,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            yield RayCluster((Path(folder) / "ray" / "ray_current_cluster").read_text(), own)
        finally:
            while pids := processes_of(folder):
                for pid in pids:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

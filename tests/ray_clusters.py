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

from dist_relu.runtime.backends.ray.reaper import processes_of
from tests.programs import TIMEOUT_S, processes_with

RAY = str(Path(sys.executable).parent / "ray")


@dataclass(frozen=True)
class RayCluster:
    """What `ray start --head` left.  environment: of programs that are to find it."""

    address: str
    environment: dict[str, str]


def environment(folder: str, **variables: str) -> dict[str, str]:
    """The variables for a user who has just installed Ray, and whose home and temporary folders are in `folder`.

    Ray's workers would yield to whatever else tests on these cores (niceness 15), and take ten times as long.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    own = {"HOME": folder, "RAY_TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    return {**inherited, **own, **variables}


@contextmanager
def temporary_folder() -> Iterator[str]:
    """A folder whose name is short enough for Ray's sockets."""
    folder = tempfile.mkdtemp(prefix="relu_", dir="/tmp")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def ray_start(*num_cpus: int, **variables: str) -> Iterator[RayCluster]:
    """A cluster as `ray start --head` leaves it, until the end of the block.

    num_cpus: of each node. The second and further ones are on this machine too, but count as machines of their own.
    """
    with temporary_folder() as folder:
        own = (
            environment(
                folder,
                RAY_AUTH_MODE="token",
                RAY_AUTH_TOKEN=secrets.token_hex(32),
                RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="01"[len(num_cpus) > 1],  # by 0 Ray stays on the loopback address
            )
            | variables
        )
        try:
            head = ["--head", "--port=0", "--include-dashboard=false", "--no-monitor", "--node-ip-address=127.0.0.1"]
            _start([*head, f"--num-cpus={num_cpus[0]}"], own)
            address = (Path(folder) / "ray" / "ray_current_cluster").read_text()
            cluster = RayCluster(address, own)
            for number, cpus in enumerate(num_cpus[1:], start=2):
                add_node(cluster, number, cpus)
            yield cluster
        finally:
            while pids := [*processes_of(folder), *_client_servers(own["RAY_AUTH_TOKEN"])]:
                for pid in pids:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)


def _client_servers(token: str) -> list[int]:
    """The servers of Ray's client, which outlive their cluster, and name no folder."""
    found = []
    for pid in processes_with(f"RAY_AUTH_TOKEN={token}\0"):
        with suppress(OSError):  # it has just ended
            if b"ray.util.client.server" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def add_node(cluster: RayCluster, number: int, num_cpus: int) -> None:
    """Let another node join a cluster that was started for several; number: from 2 on."""
    node = [f"--address={cluster.address}", f"--node-ip-address=127.0.0.{number}", f"--num-cpus={num_cpus}"]
    _start(node, cluster.environment | {"DIST_RELU_NODE": f"node {number}"})


def _start(options: list[str], variables: dict[str, str]) -> None:
    command = [RAY, "start", *options]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

"""Ray clusters of several nodes: here on one machine, whose nodes count as machines of their own."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from dist_relu.runtime.backends.ray.reaper import processes_of
from tests.programs import ON_RAY, ROOT, TIMEOUT_S, processes_with, run, wait_until
from tests.ray_clusters import RayCluster, ray_start

AWAY = {"DIST_RELU_NODE": "away"}
"""For a coordinator on whose machine there are no workers."""

PLACES = [pytest.param({}, id="home"), pytest.param(AWAY, id="away")]

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_start(2, 1) as started:
        yield started


@pytest.mark.parametrize(
    "place",
    [pytest.param({}, id="home"), pytest.param(AWAY, id="away", marks=pytest.mark.chaos)],
)
def test_the_conformance_suite_passes_on_several_nodes(cluster: RayCluster, place: dict[str, str]) -> None:
    done = run(ON_RAY, cwd=ROOT, env=cluster.environment | place)
    assert done.returncode == 0, done.stdout + done.stderr


def test_workers_go_on_few_nodes_or_are_spread(cluster: RayCluster) -> None:
    code = """
import dist_relu as dr
for spread in (False, True):
    with dr.start(2, backend="ray", spread=spread) as coordinator:
        print("nodes", coordinator.nodes)
"""
    done = run([sys.executable, "-c", code], env=cluster.environment)
    assert [line for line in done.stdout.splitlines() if "nodes" in line] == ["nodes 1", "nodes 2"], done.stderr


LOSS = """
import os, signal, time, dist_relu as dr

def pid(world, request):
    return os.getpid()

def die(world, request):
    world.barrier.wait()
    if world.rank == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    world.barrier.wait()

with dr.start(backend="ray") as coordinator:
    pids = coordinator.run(pid, None)
    print("nodes", coordinator.nodes, *pids)
    try:
        coordinator.run(die, None)
    except dr.WorkerLost as error:
        print("lost", error)
print("left", *[pid for pid in pids if os.path.exists(f"/proc/{pid}")])
import ray
ray.init(logging_level="ERROR")
deadline = time.monotonic() + 60
while ray.available_resources().get("CPU", 0) < 3 and time.monotonic() < deadline:
    time.sleep(0.1)
print("free", ray.available_resources().get("CPU", 0))
"""


@pytest.mark.parametrize("place", PLACES)
def test_a_worker_of_another_node_that_dies_is_named_and_everything_is_given_back(
    cluster: RayCluster, place: dict[str, str]
) -> None:
    done = run([sys.executable, "-c", LOSS], env=cluster.environment | place)
    said = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line}
    nodes, *pids = said["nodes"]
    assert nodes == "2"
    assert " ".join(said["lost"]).startswith(f"Worker 2 (host {socket.gethostname()}, pid {pids[2]}) died. Ray says: ")
    assert not said["left"] or place  # there is nobody to look after processes of another machine
    assert said["free"] == ["3.0"]
    wait_until(lambda: not [pid for pid in pids if Path(f"/proc/{pid}").exists()])


SPIN = """
import dist_relu as dr

def spin(world, request):
    world.report("ready")
    while True:
        world.barrier.wait()

try:
    dr.start(backend="ray").run(spin, None, lambda event: print(event, flush=True))
except dr.WorkerLost as error:
    print("lost:", error)
"""


def test_a_node_that_ends_in_the_middle_is_named() -> None:
    with ray_start(2, 1) as cluster:
        process = subprocess.Popen(
            [sys.executable, "-c", SPIN],
            env=cluster.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(3)] == ["ready\n"] * 3
        of_cluster = set(processes_of(cluster.environment["RAY_TMPDIR"]))
        for pid in of_cluster & set(processes_with("DIST_RELU_NODE=node 2\0")):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        output, _ = process.communicate(timeout=TIMEOUT_S)
    host = re.escape(socket.gethostname())
    assert re.search(rf"lost: (Host {host} \(rank 2\) is gone[: ]|Worker 2 \(host {host}, pid \d+\) died\.)", output), (
        output
    )

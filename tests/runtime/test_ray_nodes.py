"""Ray clusters of several nodes: here on one machine, whose nodes count as machines of their own."""

from __future__ import annotations

import json
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
from tests.cases import chaos
from tests.programs import ON_RAY, ROOT, TIMEOUT_S, processes_with, run, wait_for_line, wait_until
from tests.ray_clusters import RayCluster, add_node, ray_start

AWAY = {"DIST_RELU_NODE": "away"}
"""For a coordinator on whose machine there are no workers."""

PLACES = [pytest.param({}, id="home"), pytest.param(AWAY, id="away")]

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_start(2, 1) as started:
        yield started


@pytest.mark.chaos
@pytest.mark.parametrize("place", PLACES)
def test_the_conformance_suite_passes_on_several_nodes(cluster: RayCluster, place: dict[str, str]) -> None:
    done = run(ON_RAY, cwd=ROOT, env=cluster.environment | place)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.chaos
def test_workers_go_on_few_nodes_or_are_spread(cluster: RayCluster) -> None:
    code = """
import dist_relu as dr
for spread in (False, True):
    with dr.start(2, backend="ray", spread=spread) as coordinator:
        print("nodes", coordinator.nodes)
"""
    done = run([sys.executable, "-c", code], env=cluster.environment)
    assert [line for line in done.stdout.splitlines() if "nodes" in line] == ["nodes 1", "nodes 2"], done.stderr


ON_NODES = """
import logging, os, signal
import dist_relu as dr

def node(world, request):
    return world.node.number

def die(world, request):
    if world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    world.barrier.wait()

class Leaves(logging.Handler):
    def emit(self, record):
        print(record.getMessage())
        first.close()

for nodes in (1, 2):
    with dr.start(2, backend="ray", nodes=nodes) as coordinator:
        print("nodes", *coordinator.run(node, None))
        if nodes == 2:
            try:
                coordinator.run(die, None)
            except dr.WorkerLost:
                print("nodes", *coordinator.run(node, None))
for workers in (3, 4):
    try:
        dr.start(workers, backend="ray", nodes=2)
    except ValueError as error:
        print(error)
logging.getLogger("dist_relu").addHandler(Leaves())
first = dr.start(2, backend="ray", nodes=1)
print("nodes", *first.run(node, None))
with dr.start(2, backend="ray", nodes=2) as second:
    print("nodes", *second.run(node, None))
"""


def test_workers_are_on_exactly_so_many_nodes_or_wait_for_them_or_are_refused(cluster: RayCluster) -> None:
    done = run([sys.executable, "-c", ON_NODES], env=cluster.environment)
    assert [line for line in done.stdout.splitlines() if "(raylet)" not in line] == [
        "nodes 0 0",
        "nodes 0 1",
        "nodes 0 1",
        "nodes=2 does not divide workers=3.",
        "workers=4 on nodes=2 need 2 CPUs on each. This Ray cluster's nodes have: 2, 1. Ask for fewer, or add nodes.",
        "nodes 0 0",
        "Waiting for 2 CPUs on 2 nodes, 1 for each worker. This Ray cluster has 3, of which free: 1.",
        "nodes 0 1",
    ], done.stderr


def test_the_same_workers_are_measured_on_so_many_nodes(cluster: RayCluster, tmp_path: Path) -> None:
    few = ["--model", "mlp:16", "--steps", "3", "--warm-up", "1", "--repetitions", "1"]
    command = [sys.executable, "-m", "dist_relu", "scale", "--backend", "ray", *few, "--output", str(tmp_path)]
    done = run([*command, "--workers", "2,4", "--nodes", "1,2"], env=cluster.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Left out: 4 workers on 1 node, for which too few have room." in done.stdout
    lines = [json.loads(line) for line in (tmp_path / "measurements.jsonl").read_text().splitlines()]
    assert sorted((line["point"]["workers"], line["nodes"]) for line in lines) == [(2, 1), (2, 2)]
    assert len({line["sha256"] for line in lines}) == 1


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


@pytest.mark.chaos
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


REGROUP = """
import itertools, os, signal, sys
import dist_relu as dr
from dist_relu.errors import NoRoom
from dist_relu.runtime.backends import RayBackend
from dist_relu.runtime.backends.base import ignore_event, run_task
from dist_relu.runtime.worker import Task

numbers = itertools.count(1)

def run(function, request=None):
    return run_task(backend, Task.of(next(numbers), function, request), range(len(backend.peers)), ignore_event)

def meet(world, request):
    world.barrier.wait()
    return os.getpid(), world.node.number

def lose(world, victim):
    world.barrier.wait()
    if world.rank == victim:
        os.kill(os.getpid(), NUMBER)
    while True:
        world.barrier.wait()

backend = RayBackend(3, worker_timeout_s=2)
for victim in map(int, sys.argv[1:]):
    before = run(meet)
    try:
        run(lose, victim)
    except dr.WorkerLost as loss:
        print("lost", victim, loss.ranks)
    backend.regroup(3)
    after = run(meet)
    print("nodes", *(node for _, node in after), "stayed", *(old == new for old, new in zip(before, after)))
print("room", backend.room())
backend.close()
"""


@pytest.mark.parametrize(
    ("number", "place"),
    chaos((signal.SIGKILL, AWAY), (signal.SIGKILL, {}), (signal.SIGSTOP, {}), (signal.SIGSTOP, AWAY)),
)
def test_workers_of_any_node_that_die_or_are_stopped_are_replaced_there_and_the_others_stay(
    place: dict[str, str], number: signal.Signals
) -> None:
    with ray_start(1, 2) as cluster:
        code = REGROUP.replace("NUMBER", str(int(number)))
        command = [sys.executable, "-c", code, *("012" if number == signal.SIGKILL else "12")]
        done = run(command, env=cluster.environment | place)
    said = [line for line in done.stdout.splitlines() if line.startswith(("lost", "nodes", "room"))]
    assert said[-1] == "room 3", done.stdout + done.stderr
    nodes = said[1].partition("stayed")[0].split()[1:]
    for lost, then, victim in zip(said[:-1:2], said[1:-1:2], command[3:], strict=True):
        assert lost == f"lost {victim} [{victim}]"
        assert then.partition(" stayed ")[0].split()[1:] == nodes
        assert then.partition(" stayed ")[2].split() == [str(rank != int(victim)) for rank in range(3)]


SURVIVE = """
import hashlib, sys
import dist_relu as dr

with dr.start(3, backend="ray", worker_timeout_s=5) as coordinator:
    data, model = dr.data.load("digits"), dr.nn.mlp((64,), 10)
    trainer = coordinator.trainer(model, data.train, dr.optim.AdamW(lr=0.001), batch_size=128, shards=4)
    trainer.fit(steps=20)
    print("ready", flush=True)
    input()
    trainer.fit(steps=20)
    print("digest", hashlib.sha256(model.values).hexdigest(), "workers", coordinator.workers)
"""


@pytest.mark.parametrize(("spare", "workers"), chaos((0, 2), (1, 3)))
def test_a_training_survives_the_end_of_a_node_on_another_one_or_with_fewer_workers(spare: int, workers: int) -> None:
    def train(cluster: RayCluster, *, is_disturbed: bool) -> list[str]:
        pipe = subprocess.PIPE
        with subprocess.Popen(
            [sys.executable, "-c", SURVIVE], env=cluster.environment, stdin=pipe, stdout=pipe, text=True
        ) as process:
            wait_for_line(process, "ready")
            if is_disturbed:
                of_cluster = set(processes_of(cluster.environment["RAY_TMPDIR"]))
                for pid in of_cluster & set(processes_with("DIST_RELU_NODE=node 2\0")):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            output, _ = process.communicate("\n", timeout=TIMEOUT_S)
        return next(line for line in output.splitlines() if line.startswith("digest")).split()

    with ray_start(2, 1, *[1] * spare) as cluster:
        undisturbed = train(cluster, is_disturbed=False)
        disturbed = train(cluster, is_disturbed=True)
    assert disturbed == [*undisturbed[:3], str(workers)]


ELASTIC = """
import dist_relu as dr

class Told:
    def on_epoch_end(self, trainer, summary):
        if coordinator.workers != self.workers:
            self.workers = coordinator.workers
            print("workers", self.workers, flush=True)
        if self.workers == 2 and self.has_grown:
            raise StopIteration
        self.has_grown |= self.workers == 4

    workers, has_grown = 0, False

data = dr.data.load("digits")
model = dr.nn.mlp([32], 10)
with dr.start("2:4", backend="ray") as coordinator:
    arguments = dict(batch_size=64, shards=4, seed=1)
    trainer = coordinator.trainer(model, data.train, dr.optim.SGD(0.01), **arguments)
    trainer.fit(epochs=10**6, callbacks=[Told()])
    losses = trainer.losses
with dr.start(backend="serial") as coordinator:
    trainer = coordinator.trainer(dr.nn.mlp([32], 10), data.train, dr.optim.SGD(0.01), **arguments)
    trainer.fit(steps=len(losses))
    print("equal bits", trainer.model.sha256() == model.sha256(), (trainer.losses == losses).all())
"""


@pytest.mark.chaos
def test_a_run_grows_and_shrinks_with_the_cluster() -> None:
    with ray_start(2, RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="1") as cluster:
        program = subprocess.Popen(
            [sys.executable, "-u", "-c", ELASTIC],
            env=cluster.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for_line(program, "workers 2")
        add_node(cluster, 2, 2)
        wait_for_line(program, "workers 4")
        for pid in processes_with("DIST_RELU_NODE=node 2"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        output, errors = program.communicate(timeout=TIMEOUT_S)
        assert "workers 2" in output, errors
        assert "equal bits True True" in output, errors

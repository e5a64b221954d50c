"""Ray on several hosts of the test network.  Needs root."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from tests.digests import TRAININGS
from tests.hosts.network import HOSTS, hosts
from tests.programs import ON_RAY, TRAIN, marked_environment, processes_with, wait_for_line, wait_until

PLACEMENTS = ["2+1+1", "1+1+1"]


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_several_ray_nodes_end_with_the_bits_that_there_have_always_been(tmp_path: Path, placement: str) -> None:
    path = tmp_path / "report.json"
    hosts("ray", placement, *TRAIN, *TRAININGS[0].options(), "--quiet", "--backend", "ray", "--report", str(path))
    report = json.loads(path.read_text())
    assert report["nodes"] == 3
    assert report["params_sha256"] == TRAININGS[0].digest


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_all_trainings_whose_digests_are_known_end_with_them(placement: str) -> None:
    said = hosts("ray", placement, *ON_RAY, "-k", "test_digests")
    assert f"{len(TRAININGS)} passed" in said


TRAFFIC = """
import json, time, dist_relu as dr
from pathlib import Path

def sent(world, request):
    return int(Path("/sys/class/net/eth0/statistics/tx_bytes").read_text()), time.time()

def on_nodes():
    replies = coordinator.run(sent, None)
    return [replies[ranks.start] for ranks in nodes]

def bytes_of(epochs):
    before = on_nodes()
    coordinator.fit(model, data.train, dr.optim.SGD(lr=0.01), epochs=epochs, batch_size=128, shards=4)
    after = on_nodes()
    seconds = after[0][1] - before[0][1]
    time.sleep(1)
    idle = on_nodes()
    return [
        (b - a) - (c - b) / (idle_until - until) * seconds
        for (a, _), (b, until), (c, idle_until) in zip(before, after, idle)
    ]

with dr.start(backend="ray") as coordinator:
    nodes = coordinator.run(lambda world, request: world.nodes, None)[0]
    data, model = dr.data.load("digits"), dr.nn.mlp((1024, 1024), 10)
    few, many = bytes_of(1), bytes_of(5)
    steps = 4 * -(-len(data.train) // 128)
    per_step = [(b - a) / steps for a, b in zip(few, many)]
    print(json.dumps([per_step, model.values.nbytes]))
"""


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_wire_carries_what_it_must_and_no_more(placement: str) -> None:
    per_step, size_bytes = json.loads(hosts("ray", placement, sys.executable, "-c", TRAFFIC).splitlines()[-1])
    least = 2 * (3 - 1) / 3 * size_bytes
    for name, sent in zip("abc", per_step, strict=True):
        assert 0.9 * least < sent < 1.1 * least, f"host {name}: {sent / least:.3f} of the optimum"


PLACING = """
import sys, numpy as np, dist_relu as dr
from pathlib import Path

def sent(): return int(Path("/sys/class/net/eth0/statistics/tx_bytes").read_text())

with dr.start(backend="ray") as coordinator:
    x = np.random.default_rng(0).standard_normal((100_000, 100), np.float32)
    data = dr.data.Dataset(x, np.zeros(len(x), np.int64))
    model = dr.nn.mlp((4,), 2)
    optimizer = dr.optim.SGD(lr=0.01)
    coordinator.fit(model, (x[:100], data.y[:100]), optimizer, epochs=1, batch_size=100, shards=4)
    before = sent()
    coordinator.fit(model, data, optimizer, epochs=1, batch_size=len(x), shards=4)
    placed = sent()
    coordinator.fit(model, data, optimizer, epochs=1, batch_size=len(x), shards=4)
    print((placed - before) / data.x.nbytes, (sent() - placed) / data.x.nbytes)
"""


def test_a_data_set_reaches_each_host_once_and_stays_there() -> None:
    first, again = map(float, hosts("ray", "1+2+1", sys.executable, "-c", PLACING).split())
    assert 2 <= first < 2.2
    assert again < 0.1


AWAY = """
import socket
import dist_relu as dr
coordinator = dr.start(2, backend="ray")
assert socket.gethostname() not in coordinator.run(lambda world, request: socket.gethostname(), None)
print(coordinator.nodes, coordinator.relu([-1.0, 2.0]).tolist())
"""


def test_the_coordinator_may_be_where_no_worker_is() -> None:
    assert hosts("ray", "0+1+1", sys.executable, "-c", AWAY).split("\n")[-2] == "2 [0.0, 2.0]"


@pytest.mark.parametrize(
    ("victim", "messages"),
    [  # which of b and c has rank 2 is up to Ray
        ("b", [r"Host b \(rank [23]\) has not been heard of for 10 s"]),
        ("a", [r"Host b \(rank [23]\)", r"Host c \(rank [23]\)", "heard of for 10 s; host a may be cut off"]),
    ],
)
def test_a_host_that_is_unplugged_is_named_within_15_seconds(victim: str, messages: list[str]) -> None:
    mark = uuid.uuid4().hex
    command = [HOSTS, "ray", "2+1+1", *TRAIN, "--backend", "ray", "--on-failure", "stop"]
    command += ["--shards", "4", "--epochs", "1000000"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=marked_environment(mark)
    )
    try:
        assert process.stdout is not None
        wait_for_line(process, "epoch 1/")
        unplugged = time.monotonic()
        hosts("link", victim, "down")
        _, errors = process.communicate(timeout=60)
        assert time.monotonic() - unplugged < 15
    finally:
        hosts("link", victim, "up")
        process.terminate()
        process.wait()
    assert process.returncode == 1
    assert all(re.search(message, errors) for message in messages), errors
    wait_until(lambda: not processes_with(mark))


SURVIVE = """
import dist_relu as dr

def trainer(coordinator, model):
    return coordinator.trainer(model, data.train, dr.optim.AdamW(lr=0.001), batch_size=128, shards=4)

data, model, again = dr.data.load("digits"), dr.nn.mlp((64,), 10), dr.nn.mlp((64,), 10)
with dr.start(backend="ray") as coordinator:
    run = trainer(coordinator, model)
    run.fit(steps=10)
    print("ready", flush=True)
    while not coordinator.recoveries:
        run.fit(steps=100)
    run.fit(steps=100)
    workers = coordinator.workers
with dr.start(1, backend="serial") as alone:
    trainer(alone, again).fit(steps=run.step)
print("workers", workers, "same", model.values.tobytes() == again.values.tobytes())
"""


@pytest.mark.parametrize(("victim", "workers"), [("b", 3), ("a", 2)])
def test_a_training_goes_on_with_those_who_are_left_when_a_host_is_unplugged(victim: str, workers: int) -> None:
    process = subprocess.Popen(
        [HOSTS, "ray", "2+1+1", sys.executable, "-c", SURVIVE], stdout=subprocess.PIPE, text=True
    )
    try:
        wait_for_line(process, "ready")
        hosts("link", victim, "down")
        output, _ = process.communicate(timeout=120)
    finally:
        hosts("link", victim, "up")
        process.terminate()
        process.wait()
    assert f"workers {workers} same True\n" in output


COLLECTIVE = """
import sys, time
import numpy as np
import ray
from ray.util import collective
from dist_relu.integrations import ray_collective

@ray.remote(num_cpus=1)
class Actor:
    def join(self, rank):
        ray_collective.register()
        collective.init_collective_group(3, rank, "dist_relu", "g")

    def add(self):
        array = np.full(1000, 0.5)
        collective.allreduce(array, "g")
        return float(array[0])

    def add_for_ever(self):
        try:
            while True:
                self.add()
        except Exception as error:
            return type(error).__name__

ray.init(logging_level="ERROR")
group = ray.util.placement_group([{"CPU": 1}] * 3, "STRICT_SPREAD")
actors = [Actor.options(placement_group=group).remote() for _ in range(3)]
ray.get([actor.join.remote(rank) for rank, actor in enumerate(actors)])
print("sums", *ray.get([actor.add.remote() for actor in actors]), flush=True)
waiting = [actor.add_for_ever.remote() for actor in actors]
print("said", ray.get(ray.wait(waiting)[0])[0], flush=True)
"""


def test_ray_util_collective_works_between_hosts_and_does_not_wait_for_one_that_is_unplugged() -> None:
    process = subprocess.Popen(
        [HOSTS, "ray", "1+1+1", sys.executable, "-c", COLLECTIVE], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "sums 1.5 1.5 1.5\n"
        hosts("link", "b", "down")
        output, _ = process.communicate(timeout=60)
    finally:
        hosts("link", "b", "up")
        process.terminate()
        process.wait()
    assert "said WorkerLost\n" in output

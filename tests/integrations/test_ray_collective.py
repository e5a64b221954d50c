"""`ray.util.collective` with our backend: whatever Ray's interface can do, on NumPy arrays."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest

from tests.programs import run
from tests.ray_clusters import RayCluster, ray_start

PROGRAM = """
import json, os, sys
import numpy as np
import ray
from ray.util import collective
from ray.util.collective.types import ReduceOp
from dist_relu.integrations import ray_collective

NUM = 3

@ray.remote(num_cpus=1)
class Actor:
    def __init__(self, rank):
        ray_collective.register()
        self.rank = rank

    def init(self):
        collective.init_collective_group(NUM, self.rank, "dist_relu", "g")

    def array(self, size, dtype="float32"):
        return np.random.default_rng(self.rank).standard_normal(size).astype(dtype)

    def reduced(self, size, op, dtype="float32"):
        array = self.array(size, dtype)
        collective.allreduce(array, "g", ReduceOp[op])
        return array

    def others(self):
        rank, seen = self.rank, {}
        array = np.full((2, 2), rank)
        collective.reduce(array, 1, "g")
        seen["reduce"] = array.tolist()
        array = np.arange(12).reshape(4, 3).T + 100 * rank  # not contiguous
        collective.broadcast(array, 2, "g")
        seen["broadcast"] = array.tolist()
        gathered = [np.zeros(2) for _ in range(NUM)]
        collective.allgather(gathered, np.array([rank, 0.5]), "g")
        seen["allgather"] = [g.tolist() for g in gathered]
        part = np.zeros(2, int)
        collective.reducescatter(part, [np.array([10 * i + rank, i]) for i in range(NUM)], "g")
        seen["reducescatter"] = part.tolist()
        array = np.array([rank, rank])
        if rank == 0:
            collective.send(array, 2, "g")
        elif rank == 2:
            collective.recv(array, 0, "g")
        collective.barrier("g")
        seen["received"] = array.tolist()
        return seen

    def refused(self):
        said = []
        for attempt in (
            lambda: collective.allreduce(np.array(["text"]), "g"),
            lambda: collective.allgather([np.zeros(2)] * NUM, np.zeros(3), "g"),
        ):
            try:
                attempt()
            except (TypeError, ValueError) as error:
                said.append(str(error))
        return said

    def die(self):
        if self.rank == 1:
            os._exit(1)
        try:
            while True:
                collective.allreduce(np.zeros(10), "g")
        except Exception as error:
            return type(error).__name__

    def leave(self):
        collective.destroy_collective_group("g")

ray.init(logging_level="ERROR")
ray_collective.register()
actors = [Actor.remote(rank) for rank in range(NUM)]

def all_of(method, *arguments):
    return ray.get([getattr(actor, method).remote(*arguments) for actor in actors])

all_of("init")
arrays = all_of("array", 300_001)
report = {"same": [], "equal": []}
for _ in range(3):
    sums = all_of("reduced", 300_001, "SUM")
    report["same"].append(all(s.tobytes() == sums[0].tobytes() for s in sums))
    report["equal"].append(bool((sums[0] == (arrays[0] + arrays[1]) + arrays[2]).all()))
for op, function in (("MIN", np.minimum), ("MAX", np.maximum), ("PRODUCT", np.multiply)):
    report["equal"] += [bool((r == function(function(arrays[0], arrays[1]), arrays[2])).all())
                        for r in all_of("reduced", 300_001, op)]
for size, dtype in ((0, "float64"), (1, "float64"), (5, "int64"), (70_000, "complex64"), (2_000_000, "float64")):
    arrays = all_of("array", size, dtype)
    expected = (arrays[0] + arrays[1]) + arrays[2]
    report["equal"] += [bool((r == expected).all()) for r in all_of("reduced", size, "SUM", dtype)]
report["others"] = all_of("others")
report["refused"] = all_of("refused")[0]
all_of("leave")
all_of("init")
expected = sum(all_of("array", 5, "int64"))
report["again"] = [bool((r == expected).all()) for r in all_of("reduced", 5, "SUM", "int64")]
last = [actor.die.remote() for actor in actors]
report["survivors"] = [ray.get(last[0]), ray.get(last[2])]
print("report", json.dumps(report))
"""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((3,), id="one node"),
        pytest.param((2, 1), id="two nodes", marks=pytest.mark.chaos),
        pytest.param((1, 1, 1), id="three nodes", marks=pytest.mark.chaos),
    ],
)
def cluster(request: pytest.FixtureRequest) -> Iterator[RayCluster]:
    if len(request.param) == 1:
        yield request.getfixturevalue("ray_cluster")
        return
    with ray_start(*request.param) as started:
        yield started


@pytest.mark.chaos
def test_everything_that_ray_util_collective_has(cluster: RayCluster) -> None:
    done = run([sys.executable, "-c", PROGRAM], env=cluster.environment)
    assert "report" in done.stdout, done.stdout + done.stderr
    report = json.loads(done.stdout.partition("report ")[2].splitlines()[0])
    assert report["same"] == [True] * 3
    assert report["equal"] == [True] * (3 + 9 + 15)
    for rank, seen in enumerate(report["others"]):
        assert seen["reduce"] == ([[3, 3], [3, 3]] if rank == 1 else [[rank] * 2] * 2)
        assert seen["broadcast"] == [[200 + 3 * column + row for column in range(4)] for row in range(3)]
        assert seen["allgather"] == [[0, 0.5], [1, 0.5], [2, 0.5]]
        assert seen["reducescatter"] == [30 * rank + 3, 3 * rank]
        assert seen["received"] == ([0, 0] if rank == 2 else [rank, rank])
    assert "expected a NumPy array of numbers, got an array of <U4" in report["refused"][0]
    assert "array 0 of the list is float64 (2,); expected float64 (3,)" in report["refused"][1]
    assert report["again"] == [True] * 3
    assert report["survivors"] == ["WorkerLost", "WorkerLost"]

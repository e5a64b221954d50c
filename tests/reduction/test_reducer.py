"""A reducer adds what all workers have, however it is cut, and in the order of the summation tree."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import dist_relu as dr
from dist_relu.bench.summation import Summation, SumMemory, SumRequest
from tests.cases import chaos, long
from tests.programs import ROOT, mpirun_on_nodes, run

SIZES = [1, 2, 5, 3000, 100_000]


def add(world: dr.World, request: SumRequest) -> None:
    summation = Summation(world, request)
    values = np.arange(len(summation.mine)) % 100
    for step in range(request.repeats):
        summation.mine[:] = values + (world.rank + 1) * 10**step
        summation()
        assert (summation.total == world.size * values + sum(range(1, world.size + 1)) * 10**step).all()
        world.barrier.wait()


def add_all_sizes(coordinator: dr.Coordinator) -> None:
    for size in SIZES:
        memory = SumMemory(coordinator.replicas, size)
        coordinator.run(add, memory.request(3))


def test_workers_of_a_node_have_the_sum(two_workers: dr.Coordinator) -> None:
    add_all_sizes(two_workers)


@pytest.mark.long
@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_has_the_sum(workers: int) -> None:
    with dr.start(workers, backend="local") as coordinator:
        add_all_sizes(coordinator)


@pytest.mark.parametrize(("placement", "nodes"), [("aab", 2), *long(("aabc", 3)), *chaos(("abcdefgh", 8))])
def test_all_nodes_have_the_sum(tmp_path: Path, placement: str, nodes: int) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import json, sys\n"
        f"sys.path.insert(0, {json.dumps(str(ROOT))})\n"
        "import dist_relu as dr\n"
        "from tests.reduction.test_reducer import add_all_sizes\n"
        "with dr.start(backend='mpi') as coordinator:\n"
        "    add_all_sizes(coordinator)\n"
        "    print(coordinator.nodes, coordinator.workers)\n"
    )
    done = run(mpirun_on_nodes(placement, sys.executable, str(program)))
    assert done.stdout.split() == [str(nodes), str(len(placement))], done.stderr

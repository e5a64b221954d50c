"""Runs go on anywhere: on another backend and another number of workers after every stop, to the same bits."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.programs import ROOT, mpirun, run
from tests.ray_clusters import RayCluster

WANDERER = [sys.executable, str(ROOT / "tests" / "long" / "wanderer.py")]
STOPS = ["serial 1", "mpi 2", "local 3", "mpi 4", "local 2", "ray 2", "mpi 1", "local 4", "mpi 3", "local 1"]


@pytest.mark.chaos
def test_runs_that_wander_end_with_the_bits_of_those_that_stayed_at_home(
    ray_cluster: RayCluster, tmp_path: Path
) -> None:
    at_home: dict[str, list[list[str]]] = {}
    for number, place in enumerate(STOPS):
        backend, workers = place.split()
        stop = "end" if number == len(STOPS) - 1 else f"{number} {place}"
        command = [*WANDERER, str(tmp_path), stop, workers, backend]
        done = run(mpirun(int(workers), *command) if backend == "mpi" else command, env=ray_cluster.environment)
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        assert len(lines) == 12
        for line in lines:
            known = at_home.setdefault(line["run"], line["at_home"])
            assert line["at_home"] == known == [known[0]] * 3, (place, line["run"])
            if stop == "end":
                assert line["digests"] == known[0], line["run"]

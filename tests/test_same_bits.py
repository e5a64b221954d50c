"""The promise, at the command line: the same parameters on any number of workers and on every backend.

The conformance suite holds more models to it: see tests/conformance/test_digests.py.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from dist_relu.cli.main import main
from tests.cases import long
from tests.digests import TRAININGS
from tests.programs import ROOT, TRAIN, mpirun, mpirun_on_nodes, run
from tests.ray_clusters import environment, temporary_folder

TRAINING = TRAININGS[0]

AVX2 = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+bmi,+bmi2,+sse4.2,+popcnt,+lzcnt"}
"""What makes Numba compile for processors with vectors half as wide as those of AVX-512."""


def report_of(command: list[str], path: Path, env: dict[str, str] | None = None) -> dict[str, Any]:
    """What a training leaves.  path: what the command writes it to."""
    done = run(command, env=env)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(path.read_text())
    return report


def train(tmp_path: Path, *options: str) -> list[str]:
    return [*TRAIN, *TRAINING.options(), "--quiet", "--report", str(tmp_path / "report.json"), *options]


@pytest.mark.parametrize(
    ("backend", "workers"),
    [("local", 2), *long(("serial", 1), ("local", 1), ("local", 3), ("local", 4))],
)
def test_workers_of_a_program_end_with_the_bits_that_there_have_always_been(
    tmp_path: Path, backend: str, workers: int
) -> None:
    command = train(tmp_path, "--backend", backend, "--workers", str(workers))
    report = report_of(command, tmp_path / "report.json")
    assert (report["backend"], report["workers"], report["params_sha256"]) == (backend, workers, TRAINING.digest)


@pytest.mark.parametrize("nodes", ["aba", *long("abac", "a", "aa", "aaaa")])
def test_ranks_end_with_them_too(tmp_path: Path, nodes: str) -> None:
    command = train(tmp_path)
    several = len(set(nodes)) > 1
    job = mpirun_on_nodes(nodes, *command) if several else mpirun(len(nodes), *command)
    report = report_of(job, tmp_path / "report.json")
    assert (report["backend"], report["workers"], report["params_sha256"]) == ("mpi", len(nodes), TRAINING.digest)


@pytest.mark.long
@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.usefixtures("ray_cluster")
def test_a_running_ray_cluster_ends_with_them_too(tmp_path: Path, workers: int) -> None:
    command = train(tmp_path, "--backend", "ray", "--workers", str(workers))
    report = report_of(command, tmp_path / "report.json")
    assert (report["backend"], report["workers"], report["params_sha256"]) == ("ray", workers, TRAINING.digest)


@pytest.mark.chaos
def test_a_ray_cluster_of_its_own_ends_with_them_too(tmp_path: Path) -> None:
    command = train(tmp_path, "--backend", "ray", "--workers", "2")
    with temporary_folder() as folder:
        report = report_of(command, tmp_path / "report.json", environment(folder))
    assert (report["backend"], report["workers"], report["params_sha256"]) == ("ray", 2, TRAINING.digest)


@pytest.mark.long
def test_another_seed_ends_with_other_bits(tmp_path: Path) -> None:
    report = report_of(train(tmp_path, "--backend", "serial", "--seed", "2"), tmp_path / "report.json")
    assert report["params_sha256"] != TRAINING.digest


@pytest.mark.long
@pytest.mark.skipif("avx2" not in Path("/proc/cpuinfo").read_text(), reason="this processor has no AVX2")
def test_processors_with_narrow_vectors_end_with_them_too(tmp_path: Path) -> None:
    narrow = {**os.environ, **AVX2, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    of_each_kind = ["mlp:64-4", "cnn-4", "resnet:8-4", "rnn:32-4", "policy"]
    done = run([sys.executable, "-m", "tests.digests", *of_each_kind], ROOT, narrow)
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_a_place_for_compiled_kernels_every_process_compiles_for_itself() -> None:
    program = """
import numba.core.caching as caching
for kind in [caching.CacheImpl, *caching.CacheImpl.__subclasses__()]:
    kind._locator_classes = []
import dist_relu as dr
print(dr.activations.relu([-1.0, 2.0]))
"""
    done = run([sys.executable, "-c", program])
    assert done.stdout == "[0. 2.]\n", done.stderr


@pytest.mark.long
@pytest.mark.parametrize("workers", [1, 4])
def test_mnist_is_learned(tmp_path: Path, mnist_folder: Path, workers: int) -> None:
    path = tmp_path / "report.json"
    options = ["--data", str(mnist_folder), "--model", "mlp:256,128", "--epochs", "5", "--shards", "4"]
    command = [*TRAIN, *options, "--backend", "local", "--workers", str(workers), "--report", str(path)]
    assert report_of(command, path)["test_accuracy"] >= 0.975


def test_digits_are_learned_by_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    main(["train", "--report", str(path)])
    assert json.loads(path.read_text())["test_accuracy"] >= 0.97

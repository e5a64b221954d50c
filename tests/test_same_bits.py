"""The promise: the same parameters on any number of workers and on every backend."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.programs import ROOT, TRAIN, mpirun, mpirun_on_nodes, run
from tests.ray_clusters import environment, temporary_folder

PLACES = [("local", 1), ("local", 2), ("local", 3), ("local", 4), ("mpi", 1), ("mpi", 2), ("mpi", 3), ("mpi", 4)]


AVX2 = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+bmi,+bmi2,+sse4.2,+popcnt,+lzcnt"}
"""What makes Numba compile for processors with vectors half as wide as those of AVX-512."""


def report_of(
    tmp_path: Path, backend: str, workers: int, *options: str, env: dict[str, str] | None = None
) -> dict[str, Any]:
    path = tmp_path / f"{backend}-{workers}.json"
    train = [*TRAIN, "--shards", "4", "--epochs", "3", "--quiet", "--report", str(path), *options]
    local = [*train, "--backend", backend, "--workers", str(workers)]
    done = run(mpirun(workers, *train) if backend == "mpi" else local, env=env)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(path.read_text())
    assert (report["backend"], report["workers"]) == (backend, workers)
    return report


@pytest.fixture(scope="module")
def serial_digest(tmp_path_factory: pytest.TempPathFactory) -> str:
    digest: str = report_of(tmp_path_factory.mktemp("serial"), "serial", 1, "--seed", "1")["params_sha256"]
    return digest


@pytest.mark.parametrize(("backend", "workers"), PLACES)
def test_every_backend_ends_with_the_bits_of_one_process(
    tmp_path: Path, serial_digest: str, backend: str, workers: int
) -> None:
    assert report_of(tmp_path, backend, workers, "--seed", "1")["params_sha256"] == serial_digest


@pytest.mark.skipif("avx2" not in Path("/proc/cpuinfo").read_text(), reason="this processor has no AVX2")
@pytest.mark.parametrize("model", ["mlp:64", "cnn"])
def test_processors_with_narrow_vectors_end_with_the_same_bits(tmp_path: Path, model: str) -> None:
    narrow = {**os.environ, **AVX2, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    expected = report_of(tmp_path, "local", 2, "--model", model)["params_sha256"]
    assert report_of(tmp_path, "local", 2, "--model", model, env=narrow)["params_sha256"] == expected


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


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.usefixtures("ray_cluster")
def test_a_running_ray_cluster_ends_with_them_too(tmp_path: Path, serial_digest: str, workers: int) -> None:
    assert report_of(tmp_path, "ray", workers, "--seed", "1")["params_sha256"] == serial_digest


def test_a_ray_cluster_of_its_own_ends_with_them_too(
    tmp_path: Path, serial_digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with temporary_folder() as folder:
        for name in [name for name in os.environ if name.startswith("RAY_")]:
            monkeypatch.delenv(name)
        for name, value in environment(folder).items():
            monkeypatch.setenv(name, value)
        assert report_of(tmp_path, "ray", 2, "--seed", "1")["params_sha256"] == serial_digest


def test_another_seed_ends_with_other_bits(tmp_path: Path, serial_digest: str) -> None:
    assert report_of(tmp_path, "serial", 1, "--seed", "2")["params_sha256"] != serial_digest


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_the_conformance_suite_passes_under_mpirun(ranks: int) -> None:
    done = run(mpirun(ranks, sys.executable, str(ROOT / "tests" / "under_mpi.py")))
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


@pytest.mark.parametrize("nodes", ["aabc", "abc", "abb"])
def test_the_conformance_suite_passes_on_several_nodes(nodes: str) -> None:
    done = run(mpirun_on_nodes(nodes, sys.executable, str(ROOT / "tests" / "under_mpi.py")))
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


@pytest.mark.parametrize(("model", "shards"), [("mlp:300,40", 7), ("mlp:1024,256", 4), ("cnn", 7), ("resnet:8", 8)])
def test_several_nodes_end_with_the_bits_of_one_process(tmp_path: Path, model: str, shards: int) -> None:
    options = ["--model", model, "--shards", str(shards), "--epochs", "1", "--clip-norm", "1", "--quiet"]
    digests = []
    for backend in ("serial", "mpi"):
        path = tmp_path / f"{backend}.json"
        train = [*TRAIN, *options, "--backend", backend, "--report", str(path)]
        done = run(mpirun_on_nodes("abac", *train) if backend == "mpi" else train)
        assert done.returncode == 0, done.stderr
        digests.append(json.loads(path.read_text())["params_sha256"])
    assert digests[0] == digests[1]


@pytest.mark.parametrize("workers", [1, 4])
def test_mnist_is_learned(tmp_path: Path, mnist_folder: Path, workers: int) -> None:
    report = report_of(
        tmp_path, "local", workers, "--data", str(mnist_folder), "--model", "mlp:256,128", "--epochs", "5"
    )
    assert report["test_accuracy"] >= 0.975


def test_digits_are_learned_by_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    done = run([*TRAIN, "--report", str(path)])
    assert done.returncode == 0, done.stderr
    assert json.loads(path.read_text())["test_accuracy"] >= 0.97

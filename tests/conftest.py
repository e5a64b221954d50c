"""What all tests share: backends to run on, small data sets, and a plain-NumPy twin."""

from __future__ import annotations

import gc
import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import dist_relu as dr
from dist_relu import nn
from tests.ray_clusters import RayCluster, ray_start

# Where tests run in the background, Ctrl-C is ignored, under nohup SIGHUP is, and so they would be in the programs that
# they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# What NumPy multiplies here is small: further threads, of programs too, would only wait, and take a core meanwhile.
threadpool_limits(1, "blas")
os.environ["OPENBLAS_NUM_THREADS"] = "1"

hypothesis.settings.register_profile("quick", deadline=None, max_examples=25)
hypothesis.settings.register_profile("long", deadline=None, max_examples=300)
hypothesis.settings.load_profile("quick")


_ROOT = Path(__file__).resolve().parent.parent

_COMPILING = re.compile(r"tests/kernels/|tests/optim/|tests/nn/|tests/conformance/.*\[serial-")
"""The names of tests that need all kernels, each process others first."""

_SLOW = [
    "test_comparisons",
    "test_ray_nodes",
    "test_ray",
    "test_worlds",
    "test_ray_private",
    "test_surroundings",
    "test_failures",
]

_ON_RAY = re.compile(
    r"test_ray\.py|test_ray_survival|test_ray_collective|test_actors_are|\[ray-|ray_cluster|all_backends"
)
"""The names of tests that share a cluster: to start one takes 5 s of processor time."""

_ON_TWO_WORKERS = re.compile(r"test_formats|test_status|test_autotune|run/test_tracing|test_reducer")
"""The names of files that share `two_workers`."""

_BY_THEMSELVES = re.compile(r"test_comparisons")
"""The names of files whose tests share nothing, and are the longest of those that run together."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--under-mpi", action="store_true", help="Run on the ranks of this MPI job, and only there.")
    parser.addoption("--on-ray", action="store_true", help="Run on all CPUs of the Ray cluster here, and only there.")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Let each of several processes begin with other files: what one of them compiles for pytest, the others find."""
    process = getattr(session.config, "workerinput", None)
    if process is None:
        return
    files = sorted(file for path in session.config.args for file in Path(path).rglob("test_*.py"))
    first = len(files) * int(process["workerid"].removeprefix("gw")) // process["workercount"]
    for file in files[first:] + files[:first]:
        with suppress(Exception, pytest.skip.Exception):  # to be told when it is collected
            import_module(".".join(file.resolve().relative_to(_ROOT).with_suffix("").parts))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Look for no garbage while tests are collected, nor among them later: they stay."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin where kernels are compiled, or whole jobs wait for that; then with the files that take longest.

    So none of the processes waits long for the others in the end.
    """

    def place(item: pytest.Item) -> int:
        if _COMPILING.search(item.nodeid):
            return -1
        return _SLOW.index(item.path.stem) if item.path.stem in _SLOW else len(_SLOW)

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Let `make test`, which tests in several processes, start the workers of a place, and what a file shares, once."""
    from xdist.scheduler import LoadScopeScheduling

    class OfOnePlaceOrFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if _ON_RAY.search(nodeid):
                return "ray"
            if _ON_TWO_WORKERS.search(nodeid):
                return "two workers"
            if _BY_THEMSELVES.search(nodeid):
                return nodeid
            place = re.search(r"^tests/conformance/.*\[((?:serial|local|mpi)-\w+)", nodeid)
            return place[1] if place else nodeid.partition("::")[0]

    return OfOnePlaceOrFile(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests were skipped, for each reason."""
    reasons = Counter(str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", []))
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count} skipped: {reason.removeprefix('Skipped: ')}")


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[RayCluster]:
    """A cluster with 4 CPUs, which this process finds as any other program of the tests does."""
    with ray_start(4) as cluster, pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.environment.items():
            if name.startswith("RAY_"):
                patch.setenv(name, value)
        yield cluster


@pytest.fixture(scope="session")
def two_workers() -> Iterator[dr.Coordinator]:
    """Local workers, to be left as they were found: to start them takes some seconds of processor time."""
    with dr.start(2, backend="local") as coordinator:
        yield coordinator


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261123)


@pytest.fixture(scope="session")
def digits() -> dr.data.Split:
    return dr.data.load("digits")


@pytest.fixture
def mnist_folder() -> Path:
    folder = os.environ.get("DIST_RELU_DATA")
    if folder is None:
        pytest.skip("DIST_RELU_DATA does not name a folder with mnist/")
    return Path(folder) / "mnist"


def small_model(dtype: str = "float32") -> nn.Sequential:
    """Large enough that its first gradient is multiplied out by the owners of its chunks, its others are not."""
    return nn.Sequential(nn.Dense(300), nn.ReLU(), nn.Dense(20), nn.ReLU(), nn.Dense(10), dtype=dtype)

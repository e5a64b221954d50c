"""What all tests share: backends to run on, small data sets, and a plain-NumPy twin."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn
from tests.ray_clusters import RayCluster, ray_start

# Where tests run in the background, Ctrl-C is ignored, and so it would be in the programs that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--under-mpi", action="store_true", help="Run on the ranks of this MPI job, and only there.")


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[RayCluster]:
    """A cluster with 4 CPUs, which this process finds as any other program of the tests does."""
    with ray_start(4) as cluster, pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.environment.items():
            if name.startswith("RAY_"):
                patch.setenv(name, value)
        yield cluster


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

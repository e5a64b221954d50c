"""Backends to run on: every test here that takes a coordinator runs on each, with one worker and with several."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import dist_relu as dr


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "coordinator" in metafunc.fixturenames:
        places = [("serial", 1), ("local", 1), ("local", 2), ("local", 3), ("local", 4)]
        places += [("ray", 1), ("ray", 2), ("ray", 4)]
        if metafunc.config.getoption("--under-mpi"):
            places = [("mpi", 0)]
        ids = [f"{backend}-{workers or 'all'}" for backend, workers in places]
        metafunc.parametrize("coordinator", places, ids=ids, indirect=True, scope="package")


@pytest.fixture(scope="package")
def coordinator(request: pytest.FixtureRequest) -> Iterator[dr.Coordinator]:
    """Workers of every kind, which are there for all these tests, and gone before others run."""
    backend, workers = request.param
    address = request.getfixturevalue("ray_cluster").address if backend == "ray" else None
    with dr.start(workers or None, backend=backend, address=address) as started:
        yield started

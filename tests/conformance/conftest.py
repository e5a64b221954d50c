"""Backends to run on: every test here that takes a coordinator runs on each, with one worker and with several.

Here they are those that this process starts. MPI jobs and clusters of several nodes run all of this in one job of their
own: see tests/test_worlds.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import dist_relu as dr

PLACES = [("serial", 1), ("local", 3)]
MORE_PLACES = {
    **dict.fromkeys([("ray", 2)], pytest.mark.long),
    **dict.fromkeys([("local", 1), ("local", 2), ("local", 4), ("ray", 1), ("ray", 4)], pytest.mark.chaos),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "coordinator" in metafunc.fixturenames:
        places = [pytest.param(place, id="{}-{}".format(*place)) for place in PLACES]
        places += [pytest.param(place, id="{}-{}".format(*place), marks=mark) for place, mark in MORE_PLACES.items()]
        if metafunc.config.getoption("--under-mpi"):
            places = [pytest.param(("mpi", 0), id="mpi-all")]
        if metafunc.config.getoption("--on-ray"):
            places = [pytest.param(("ray", 0), id="ray-all")]
        metafunc.parametrize("coordinator", places, indirect=True, scope="package")


@pytest.fixture(scope="session")
def few_digits(digits: dr.data.Split) -> dr.data.Split:
    """To train on the first of them: an epoch is some whole batches, and one that is not."""
    train = digits.train
    return dr.data.Split(dr.Dataset(train.x[:430], train.y[:430], train.image_shape), digits.test)


@pytest.fixture(scope="package")
def coordinator(request: pytest.FixtureRequest) -> Iterator[dr.Coordinator]:
    """Workers of every kind, which are there for all these tests, and gone before others run."""
    backend, workers = request.param
    address = request.getfixturevalue("ray_cluster").address if backend == "ray" and workers else None
    with dr.start(workers or None, backend=backend, address=address) as started:
        yield started

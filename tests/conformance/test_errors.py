"""What goes wrong in a worker reaches the user, and the workers stay usable."""

from __future__ import annotations

from typing import NoReturn

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn
from dist_relu.worker import World


class Unpicklable(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


def fail_on_last_worker(world: World, request: type[Exception]) -> None:
    if world.rank == world.size - 1:
        if request is Unpicklable:
            raise Unpicklable(1, 2)
        raise request("this went wrong")
    world.barrier.wait()


def meet(world: World, request: None) -> int:
    world.barrier.wait()
    return world.rank


def test_an_exception_reaches_the_user_with_the_name_of_its_worker(coordinator: dr.Coordinator) -> None:
    with pytest.raises(ZeroDivisionError, match="this went wrong") as caught:
        coordinator.run(fail_on_last_worker, ZeroDivisionError)
    rank, size = coordinator.workers - 1, coordinator.workers
    assert f"Raised by worker {rank} of {size} (host " in caught.value.__notes__[0]


def test_an_exception_that_cannot_travel_arrives_as_text(coordinator: dr.Coordinator) -> None:
    with pytest.raises(RuntimeError, match="Unpicklable: 1 and 2"):
        coordinator.run(fail_on_last_worker, Unpicklable)


def test_workers_are_usable_after_an_exception(coordinator: dr.Coordinator) -> None:
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            coordinator.run(fail_on_last_worker, ZeroDivisionError)
        assert coordinator.run(meet, None) == list(range(coordinator.workers))


def test_an_exception_of_the_users_own_code_ends_the_call(coordinator: dr.Coordinator, digits: dr.data.Split) -> None:
    def stop(_: object) -> NoReturn:
        raise InterruptedError("enough")

    model = nn.Sequential(nn.Dense(10))
    with pytest.raises(InterruptedError, match="enough"):
        coordinator.fit(model, digits.train, dr.optim.SGD(), epochs=2, batch_size=100, shards=4, on_progress=stop)
    assert coordinator.run(meet, None) == list(range(coordinator.workers))


def test_what_does_not_fit_together_is_refused_before_anything_is_done(
    coordinator: dr.Coordinator, digits: dr.data.Split
) -> None:
    model = nn.Sequential(nn.Dense(10))
    with pytest.raises(dr.PartitionError, match=r"A batch of 3 can't be cut into 4 shards"):
        coordinator.fit(model, digits.train, dr.optim.SGD(), epochs=1, batch_size=3, shards=4)
    with pytest.raises(dr.PartitionError, match=r"3 samples can't be cut into 4 shards"):
        coordinator.fit(
            model, (digits.train.x[:3], digits.train.y[:3]), dr.optim.SGD(), epochs=1, batch_size=4, shards=4
        )
    with pytest.raises(dr.DataError, match=r"Label 9 of sample \d+ is outside the classes 0 to 8"):
        coordinator.fit(nn.Sequential(nn.Dense(9)), digits.train, dr.optim.SGD(), epochs=1, batch_size=50, shards=4)
    with pytest.raises(ValueError, match="built for samples of shape"):
        coordinator.forward(nn.Sequential(nn.Dense(10)).build((64,)).initialize(), np.zeros((2, 5)))
    if coordinator.workers > 1:
        with pytest.raises(dr.PartitionError, match=r"1 shards leave \d+ of \d+ workers without work"):
            coordinator.fit(model, digits.train, dr.optim.SGD(), epochs=1, batch_size=50, shards=1)

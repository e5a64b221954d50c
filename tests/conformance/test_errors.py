"""What goes wrong in a worker reaches the user, and the workers stay usable."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn
from dist_relu.runtime.world import World


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


def dawdle(world: World, request: float) -> int:
    """The last worker is slow, and the others wait for it."""
    if world.rank == world.size - 1:
        time.sleep(request)
    world.barrier.wait()
    world.report(None)
    for _ in range(50):
        if world.rank == world.size - 1:
            time.sleep(request / 10)
        world.barrier.wait()
    return world.rank


def test_a_call_that_was_given_up_does_not_disturb_the_next_one(coordinator: dr.Coordinator) -> None:
    def stop(_: object) -> NoReturn:
        raise InterruptedError("enough")

    ranks = list(range(coordinator.workers))
    for _ in range(2):
        with pytest.raises(InterruptedError):
            coordinator.run(dawdle, 0.05, stop)
        assert coordinator.run(dawdle, 0.001) == ranks


def large_and_late(world: World, request: None) -> bytes:
    if world.rank == world.size - 1:
        time.sleep(0.8)
        return bytes(10_000_000)
    raise ZeroDivisionError


def test_late_and_large_replies_do_not_stand_in_the_way(coordinator: dr.Coordinator) -> None:
    if coordinator.workers > 1:
        with pytest.raises(ZeroDivisionError):
            coordinator.run(large_and_late, None)
    assert coordinator.run(meet, None) == list(range(coordinator.workers))


def give_a_lock(world: World, request: None) -> object:
    return threading.Lock()


def give_the_world(world: World, request: None) -> World:
    return world


def test_values_that_cannot_travel_are_an_error_like_any_other(coordinator: dr.Coordinator) -> None:
    with pytest.raises(
        TypeError, match=r"give_a_lock returned an object of type lock, which can't be sent to the coord"
    ):
        coordinator.run(give_a_lock, None)
    with pytest.raises(TypeError, match=r"give_the_world returned an object of type World, which can't be sent"):
        coordinator.run(give_the_world, None)
    assert coordinator.run(meet, None) == list(range(coordinator.workers))


def test_calls_from_within_a_call_are_refused(coordinator: dr.Coordinator) -> None:
    with pytest.raises(RuntimeError, match="busy with the call that this was called from"):
        coordinator.run(dawdle, 0.001, lambda _: coordinator.run(meet, None))
    assert coordinator.run(meet, None) == list(range(coordinator.workers))


def test_calls_from_several_threads_wait_for_each_other(coordinator: dr.Coordinator) -> None:
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: coordinator.run(meet, None), range(8)))
    assert results == [list(range(coordinator.workers))] * 8


def test_arguments_of_the_wrong_kind_are_refused_by_name(coordinator: dr.Coordinator, digits: dr.data.Split) -> None:
    def fit(**changes: Any) -> None:
        arguments: dict[str, Any] = {"optimizer": dr.optim.SGD(), "epochs": 1, "batch_size": 50, "shards": 4} | changes
        data = arguments.pop("data", digits.train)
        coordinator.fit(nn.Sequential(nn.Dense(10)), data, **arguments)

    for name in ("epochs", "batch_size", "shards", "seed"):
        with pytest.raises(TypeError, match=rf"{name}=1\.5: must be a whole number"):
            fit(**{name: 1.5})
        with pytest.raises(ValueError, match=rf"{name}=-1: must be at least"):
            fit(**{name: -1})
    for name in ("optimizer", "loss"):
        with pytest.raises(TypeError, match=rf"{name}='it': expected an object of type"):
            fit(**{name: "it"})
    with pytest.raises(TypeError, match=r"pass data\.train"):
        fit(data=digits)
    with pytest.raises(dr.DataError, match=r"x\[0, 1\] is 1e\+300, too large for float32"):
        fit(data=(np.array([[0, 1e300]] * 50), np.zeros(50, int)))
    fit(epochs=np.int64(1))


def test_a_loss_that_is_no_number_has_no_gradient(coordinator: dr.Coordinator, digits: dr.data.Split) -> None:
    model = nn.Sequential(nn.Dense(10), dtype="float64").build((64,)).initialize()
    model.values[:] = 1e308
    with pytest.raises(FloatingPointError, match="it has no finite gradient"):
        coordinator.gradients(model, digits.train, shards=4)


def test_a_refused_fit_leaves_the_model_as_it_was(coordinator: dr.Coordinator, digits: dr.data.Split) -> None:
    model = nn.Sequential(nn.Dense(9))
    with pytest.raises(dr.DataError):
        coordinator.fit(model, digits.train, dr.optim.SGD(), epochs=1, batch_size=50, shards=4)
    assert not model.is_built


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
        with pytest.raises(dr.PartitionError, match=r"1 shard leaves \d+ of \d+ workers without work"):
            coordinator.fit(model, digits.train, dr.optim.SGD(), epochs=1, batch_size=50, shards=1)

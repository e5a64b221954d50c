"""What is done when workers are lost, with a backend that only says what it was asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import pytest

from dist_relu.errors import BackendError, NoRoom, WorkerLost
from dist_relu.runtime.backends.base import Backend, EventHandler
from dist_relu.runtime.process_info import ProcessInfo
from dist_relu.runtime.recovery import FailurePolicy, OnFailure, parse_workers
from dist_relu.runtime.worker import Reply, Task
from dist_relu.runtime.workers import Workers


class FragileBackend(Backend):
    """So many workers, of which some are lost whenever they get a task.

    space: room for so many; None: for any number, and nobody knows.  asked: for how many it was, one after the other.
    """

    can_regroup = True
    name = "fragile"
    coordinator_node = 0
    control = None
    num_workers = 0

    def __init__(self, workers: int, space: int | None = None, lost: Sequence[int] = (0,)) -> None:
        self.num_workers, self.space, self.lost = workers, space, lost
        self.asked: list[int] = []

    @property
    def peers(self) -> Sequence[ProcessInfo]:
        return [ProcessInfo(1, "here", "here")] * self.num_workers

    @property
    def busy(self) -> Collection[int]:
        return []

    def send(self, task: Task, ranks: Sequence[int]) -> None:
        loss = WorkerLost("Worker 0 died.")
        loss.ranks = self.lost
        raise loss

    def receive(self, timeout_s: float, on_event: EventHandler) -> Mapping[int, Reply]:
        raise AssertionError("nobody was sent anything")

    def abort(self, number: int) -> None:
        pass

    def regroup(self, workers: int) -> None:
        self.asked.append(workers)
        if self.space is not None and workers > self.space:
            error = NoRoom(f"There is room for {self.space}.")
            error.room = self.space
            raise error
        self.num_workers = workers

    def room(self) -> int | None:
        return self.space

    def close(self) -> None:
        pass


def lose(workers: Workers) -> None:
    """Give the workers a task, in which some are lost, and recover."""
    with pytest.raises(WorkerLost):
        workers.run([0], max, None)
    workers.recover()


@pytest.mark.parametrize(("on_failure", "left"), [("replace", 4), ("shrink", 2)])
def test_lost_workers_are_replaced_or_others_do_their_work(on_failure: OnFailure, left: int) -> None:
    backend = FragileBackend(4, lost=[0, 2])
    workers = Workers(backend, FailurePolicy(on_failure, most=4))
    lose(workers)
    assert len(workers.peers) == left
    assert workers.generation == 1
    (recovery,) = workers.recoveries
    assert recovery.workers == (4, left)
    assert recovery.loss == "Worker 0 died."


def test_where_there_is_no_room_for_all_there_are_fewer() -> None:
    backend = FragileBackend(4, space=2)
    workers = Workers(backend, FailurePolicy(most=4))
    lose(workers)
    assert backend.asked == [4, 2]
    assert len(workers.peers) == 2


def test_workers_grow_as_far_as_they_may_when_there_is_room() -> None:
    backend = FragileBackend(2, space=8)
    workers = Workers(backend, FailurePolicy(most=4))
    workers.adapt(useful=2)
    assert backend.asked == []
    workers.adapt(useful=6)
    assert backend.asked == [4]
    assert workers.generation == 1


def test_a_group_that_was_made_smaller_does_not_grow_by_itself() -> None:
    backend = FragileBackend(4, space=8)
    workers = Workers(backend, FailurePolicy("shrink", most=4))
    lose(workers)
    workers.adapt(6)
    assert backend.asked == [3]
    workers.resize(2)
    workers.adapt(6)
    assert backend.asked == [3, 2]


def test_with_too_few_workers_the_loss_is_raised() -> None:
    workers = Workers(FragileBackend(4, space=2), FailurePolicy(least=3, most=4))
    with pytest.raises(WorkerLost):
        workers.run([0], max, None)
    with pytest.raises(WorkerLost) as caught:
        workers.recover()
    assert caught.value.__notes__ == ["There could be 2 workers now, and 3 are needed."]


def test_what_was_made_for_other_workers_asks_these_nothing() -> None:
    workers = Workers(FragileBackend(2), FailurePolicy(most=2))
    before = workers.replicas
    lose(workers)
    assert workers.replicas is not before
    with pytest.raises(BackendError, match="become others"):
        before.ask([0], max, None)


@pytest.mark.parametrize("workers", ["2:1", "0:3", "2", "2:", "two"])
def test_a_range_of_workers_that_is_none_is_refused(workers: str) -> None:
    with pytest.raises(ValueError, match=f"workers='{workers}': expected a number from 1 on, or two such as 2:8"):
        parse_workers(workers)


def test_a_range_of_workers_is_the_fewest_and_the_most() -> None:
    assert parse_workers("2:8") == (2, 8)
    assert parse_workers(4) == (4, 4)
    assert parse_workers(None) == (None, None)

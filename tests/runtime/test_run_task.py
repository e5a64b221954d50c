"""What the loop over replies does with a backend, whichever it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn

import pytest

import dist_relu as dr
from dist_relu.runtime.backends import Backend
from dist_relu.runtime.backends.base import EventHandler, run_task
from dist_relu.runtime.process_info import ProcessInfo
from dist_relu.runtime.worker import Aborted, Failed, Reply, Returned, Task

Message = Reply | str
"""A reply, or an event."""


class ScriptedBackend(Backend):
    """Workers whose messages are known beforehand, each (rank, message), one for every `receive`.

    When there is none, it is as if nothing came in time.
    """

    def __init__(self, *messages: tuple[int, Message]) -> None:
        self.messages = list(messages)
        self.waiting: set[int] = set()
        self.sent: list[int] = []
        self.aborted: list[int] = []
        self.timeouts: list[float] = []

    name = "scripted"
    peers: Sequence[ProcessInfo] = ()
    coordinator_node = None
    control = None
    num_workers = 2

    @property
    def busy(self) -> Collection[int]:
        return self.waiting

    def send(self, task: Task, ranks: Sequence[int]) -> None:
        assert not self.waiting
        self.sent.append(task.number)
        self.waiting |= set(ranks)

    def receive(self, timeout_s: float, on_event: EventHandler) -> Mapping[int, Reply]:
        self.timeouts.append(timeout_s)
        if not self.messages:
            return {}
        rank, message = self.messages.pop(0)
        if isinstance(message, str):
            on_event(message)
            return {}
        self.waiting.remove(rank)
        return {rank: message}

    def abort(self, number: int) -> None:
        self.aborted.append(number)

    def close(self) -> None:
        pass


def run(backend: Backend, number: int = 1, num_ranks: int = 2, on_event: EventHandler = print) -> list[Any]:
    return run_task(backend, Task.of(number, max, None), range(num_ranks), on_event)


def test_values_come_by_rank_and_events_as_they_come() -> None:
    backend = ScriptedBackend((1, "b"), (1, Returned(11)), (0, "a"), (0, Returned(10)))
    events: list[str] = []
    assert run(backend, on_event=events.append) == [10, 11]
    assert events == ["b", "a"]
    assert backend.aborted == []


def test_of_several_errors_that_of_the_lowest_rank_is_raised() -> None:
    backend = ScriptedBackend((2, Failed(KeyError())), (0, Aborted()), (1, Failed(ZeroDivisionError())))
    with pytest.raises(ZeroDivisionError):
        run(backend, num_ranks=3)
    assert not backend.busy


def test_the_others_have_a_moment_when_one_has_failed() -> None:
    backend = ScriptedBackend((1, Failed(ZeroDivisionError())))
    with pytest.raises(ZeroDivisionError):
        run(backend)
    assert backend.timeouts[0] == float("inf")
    assert all(timeout_s <= 0.5 for timeout_s in backend.timeouts[1:])
    assert backend.busy == {0}


def test_a_backend_has_some_seconds_to_say_how_a_worker_died_that_others_miss() -> None:
    backend = ScriptedBackend((1, Failed(dr.WorkerLost("Worker 0 died."))), (0, Aborted()))
    with pytest.raises(dr.WorkerLost):
        run(backend)
    assert 0.5 < backend.timeouts[1] <= 5


@pytest.mark.parametrize("error", [KeyboardInterrupt, InterruptedError])
def test_what_a_handler_of_events_raises_gives_the_task_up(error: type[BaseException]) -> None:
    def stop(_: object) -> NoReturn:
        raise error

    backend = ScriptedBackend((1, Returned(11)), (0, "a"))
    with pytest.raises(error):
        run(backend, number=7, on_event=stop)
    assert backend.aborted == [7]


def test_a_task_begins_when_all_have_left_the_one_before() -> None:
    backend = ScriptedBackend((0, Failed(ZeroDivisionError())))
    with pytest.raises(ZeroDivisionError):
        run(backend)
    assert backend.busy == {1}
    backend.messages = [(1, "late"), (1, Aborted()), (1, Returned(21)), (0, Returned(20))]
    events: list[str] = []
    assert run(backend, number=2, on_event=events.append) == [20, 21]
    assert (backend.sent, events) == ([1, 2], [])

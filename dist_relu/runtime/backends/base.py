"""What a backend is, and the one loop that runs a task on the workers of any.

A backend brings how its workers start and end, how bytes travel to them and back, and how it notices that one is lost.
What is to happen then, who is asked and what an answer means stands in `run_task`, once for all.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from math import inf
from typing import Any, ClassVar

from dist_relu.comm.shared_memory import Handle
from dist_relu.comm.stall_detector import SLOW_AFTER_S
from dist_relu.core.checks import check_int, optional
from dist_relu.errors import UnsuitableBackend, WorkerLost
from dist_relu.runtime.process_info import ProcessInfo
from dist_relu.runtime.worker import Failed, Reply, Returned, Task

_GRACE_AFTER_ERROR_S = 0.5
"""How long the other workers may take to reply when one has failed; then its error is raised without them."""

_GRACE_AFTER_LOSS_S = 5.0
"""The same when workers have noticed that one of them died: so long the backend may take to notice it and say how."""

EventHandler = Callable[[Any], object]


def ignore_event(event: object) -> None:
    """Handle an event that nobody wants to hear of."""


class Backend(ABC):
    """A backend is a set of workers, and how tasks and replies travel.

    It is used by one coordinator, by one thread at a time. Every method raises WorkerLost when a worker has died, and
    BackendError when workers can't be reached for another reason; after that a backend can only be closed, or brought
    back by `regroup`.
    """

    slow_after_s: float = SLOW_AFTER_S
    """How long one may be waited for before that is told."""

    can_regroup: ClassVar[bool] = False
    """Whether `regroup` may do it."""

    @property
    @abstractmethod
    def num_workers(self) -> int:
        """Return how many workers there are, or will be when all have started."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Return the name as the user writes it: "serial", "local", "mpi", "ray"."""

    @property
    @abstractmethod
    def peers(self) -> Sequence[ProcessInfo]:
        """Return the workers, by rank, which follow one another on a node.  Waits until all have started."""

    @property
    @abstractmethod
    def coordinator_node(self) -> int | None:
        """Return the number of the coordinator's own node, whose memory it shares; None if no worker runs there."""

    @property
    @abstractmethod
    def control(self) -> Handle | None:
        """Return the control memory of the coordinator's node, see `NodeBarrier`; None where there is none to see."""

    @property
    @abstractmethod
    def busy(self) -> Collection[int]:
        """Return the ranks that have been sent a task and have not replied to it yet.

        It changes with the message that is sent or received, so it is right even after Ctrl-C.
        """

    @abstractmethod
    def send(self, task: Task, ranks: Sequence[int]) -> None:
        """Let these workers begin with `task`.  No worker is busy."""

    @abstractmethod
    def receive(self, timeout_s: float, on_event: EventHandler) -> Mapping[int, Reply]:
        """Wait for busy workers, for `timeout_s` or less; returns the replies that have come, by rank.

        Passes the events that have come to `on_event`, and lets through what that raises.
        """

    @abstractmethod
    def abort(self, number: int) -> None:
        """Let workers give up task `number`: they reply soon, but for those that compute without looking up."""

    def regroup(self, workers: int) -> None:
        """Be so many workers again, after a loss or to grow or shrink: those that live stay, others start.

        No task goes on: those that are busy have been told to give theirs up, and who does not, or has been stopped, is
        ended. Workers that stay keep their processes, in the order of their ranks, and nothing of what they held for
        earlier tasks. `peers` are new, and so is the control memory. Returns when all have joined.
        Raises WorkerLost when another one dies meanwhile, or NoRoom where there is no room for so many, after both of
        which this may be called again, and otherwise BackendError: then the backend can only be closed. Where nobody
        was lost and there is no room, all is as it was.
        """
        raise UnsuitableBackend(
            f'backend="{self.name}" can\'t replace workers, nor have {workers} of them from now on.'
        )

    def keep_spare(self, *, keeps: bool) -> None:  # noqa: B027 - who can't let them wait ends them
        """Let workers that `regroup` has no place for wait for the next one from now on, or end, as do those that wait.

        To be called between tasks. A group that often changes its size is sooner there with workers that have waited.
        """

    def room(self) -> int | None:
        """Tell how many workers there could be now, those included that there are; None where that is not known.

        It changes while a cluster gains and loses nodes, and what has just become free may show a little later.
        """
        return None

    @abstractmethod
    def close(self) -> None:
        """End or release all workers, whatever they do.  May be called twice."""


def check_workers(workers: int | None, threads_per_worker: int) -> tuple[int | None, int]:
    """Check the arguments that all backends have.  Raises TypeError and ValueError."""
    return optional(check_int)("workers", workers), check_int("threads_per_worker", threads_per_worker)


def run_task(
    backend: Backend,
    task: Task,
    ranks: Sequence[int],
    on_event: EventHandler,
    on_wait: Callable[[bool], object] = ignore_event,
) -> list[Any]:
    """Run a task on these workers; returns what they returned, in the order of `ranks`, which ascends.

    Events that workers report meanwhile go to `on_event`, in this thread. Raises what the failing worker raised, with a
    note that names it, or what `on_event` raised, or WorkerLost. After an exception, Ctrl-C included, the backend takes
    the next task, which begins when all workers have left this one; after WorkerLost it must be regrouped or closed.
    on_wait: called while replies are missing, with whether these are to a task that was given up.
    """
    try:
        while backend.busy:  # with a task that was given up
            backend.receive(inf, ignore_event)
            on_wait(True)
        backend.send(task, ranks)
        replies: dict[int, Reply] = {}
        deadline = inf
        while backend.busy and (remaining_s := deadline - time.monotonic()) > 0:
            replies |= backend.receive(remaining_s, on_event)
            on_wait(False)
            if deadline == inf:
                deadline = time.monotonic() + _grace_s(replies)
    except BaseException:
        backend.abort(task.number)
        raise
    return _values([replies[rank] for rank in sorted(replies)])


def _grace_s(replies: Mapping[int, Reply]) -> float:
    """Tell how long to wait for the other workers, now that these have replied."""
    errors = [reply.error for reply in replies.values() if isinstance(reply, Failed)]
    if not errors:
        return inf
    return _GRACE_AFTER_LOSS_S if any(isinstance(error, WorkerLost) for error in errors) else _GRACE_AFTER_ERROR_S


def _values(replies: Sequence[Reply]) -> list[Any]:
    """Unpack what the workers returned.  Raises the error of the lowest rank that failed."""
    for reply in replies:
        if isinstance(reply, Failed):
            raise reply.error
    returned = [reply.value for reply in replies if isinstance(reply, Returned)]
    assert len(returned) == len(replies), "somebody gave up the task and did not say why"
    return returned

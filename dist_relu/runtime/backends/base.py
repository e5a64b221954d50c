"""What a backend is: how workers start, and how calls and replies travel."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, final

from dist_relu.comm.barrier import TaskAborted
from dist_relu.runtime.process_info import ProcessInfo
from dist_relu.runtime.worker import Failed, Reply, Returned, Task

GRACE_AFTER_ERROR_S = 0.5
"""How long the other workers may take to answer when one has failed; then the error is raised without them."""

_NODE_VARIABLE = "DIST_RELU_NODE"
"""Processes that set it to different names count as on different nodes, even where they could share memory."""

EventHandler = Callable[[Any], object]


class Backend(ABC):
    """A set of workers that run calls together.  Used by one coordinator, from one thread."""

    @property
    @abstractmethod
    def name(self) -> str:
        """As the user writes it: "serial", "local", "mpi"."""

    @property
    @abstractmethod
    def peers(self) -> Sequence[ProcessInfo]:
        """The workers, by rank; those of a node have ranks one after the other."""

    @property
    @abstractmethod
    def coordinator_node(self) -> int | None:
        """The number of the node whose memory the coordinator shares; None if there are no workers on its node."""

    @abstractmethod
    def call(self, call: Task, ranks: Sequence[int], on_event: EventHandler) -> list[Any]:
        """Run the call on these workers; returns what they returned, in the order of `ranks`, which ascends.

        Events that workers report meanwhile go to `on_event`, in this thread. Raises what the failing worker raised,
        with a note that names it, or WorkerLost. After an exception the backend takes the next call, which begins when
        all workers have left this one; after WorkerLost it can only be closed.
        """

    @abstractmethod
    def close(self) -> None:
        """End or release all workers, whatever they do.  May be called twice."""


def info_here() -> ProcessInfo:
    """How this process presents itself to the others of a cluster."""
    return ProcessInfo.here(os.environ.get(_NODE_VARIABLE, ""))


def values(replies: Sequence[Reply]) -> list[Any]:
    """What the workers returned.  Raises the error of the lowest rank that failed."""
    for reply in replies:
        if isinstance(reply, Failed):
            raise reply.error
    returned = [reply.value for reply in replies if isinstance(reply, Returned)]
    assert len(returned) == len(replies), "somebody gave up the call and did not say why"
    return returned


@final
class EventsHere:
    """Passes on the events of a worker that runs in the user's own process."""

    def __init__(self) -> None:
        self._handler: EventHandler | None = None
        self._error: BaseException | None = None

    def report(self, event: Any) -> None:
        """Called by the worker.  An exception of the user's handler gives up the call; it is kept for the user."""
        assert self._handler is not None
        try:
            self._handler(event)
        except BaseException as error:
            self._error = error
            raise TaskAborted from None

    @contextmanager
    def to(self, handler: EventHandler) -> Iterator[None]:
        """Pass events to `handler` meanwhile, and raise in the end what it raised."""
        self._handler, self._error = handler, None
        yield
        if self._error is not None:
            raise self._error

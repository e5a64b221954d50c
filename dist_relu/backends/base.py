"""What a backend is: how workers start, and how calls and replies travel."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, final

from dist_relu.collectives.barrier import Aborted
from dist_relu.errors import WorkerLost
from dist_relu.machine import is_stopped
from dist_relu.worker import Call, Hello, Raised, Reply, Returned

GRACE_AFTER_ERROR_S = 0.5
"""How long the other workers may take to answer when one has failed; then the error is raised without them."""

LOOK_EVERY_S = 1.0
"""How often a backend that waits looks whether workers stand still."""

_LOOKS_IN_VAIN = 20

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
    def peers(self) -> Sequence[Hello]:
        """The workers, by rank; those of a node have ranks one after the other."""

    @property
    @abstractmethod
    def home(self) -> int | None:
        """The number of the node whose memory the coordinator shares; None if there are no workers on its node."""

    @abstractmethod
    def call(self, call: Call, ranks: Sequence[int], on_event: EventHandler) -> list[Any]:
        """Run the call on these workers; returns what they returned, in the order of `ranks`, which ascends.

        Events that workers report meanwhile go to `on_event`, in this thread. Raises what the failing worker raised,
        with a note that names it, or WorkerLost. After an exception the backend takes the next call, which begins when
        all workers have left this one; after WorkerLost it can only be closed.
        """

    @abstractmethod
    def close(self) -> None:
        """End or release all workers, whatever they do.  May be called twice."""


def hello_here() -> Hello:
    """How this process presents itself to the others of a cluster."""
    return Hello.here(os.environ.get(_NODE_VARIABLE, ""))


def values(replies: Sequence[Reply]) -> list[Any]:
    """What the workers returned.  Raises the error of the lowest rank that failed."""
    for reply in replies:
        if isinstance(reply, Raised):
            raise reply.error
    returned = [reply.value for reply in replies if isinstance(reply, Returned)]
    assert len(returned) == len(replies), "somebody gave up the call and did not say why"
    return returned


@final
class Standstill:
    """Notices workers of this node that somebody has stopped (SIGSTOP), and who do not know it themselves.

    It counts looks, not seconds, so that nobody is blamed after this process itself has stood still.
    """

    def __init__(self) -> None:
        self._looks: dict[int, int] = {}  # how often each was seen to stand still, one look after the other
        self._next_s = 0.0

    def look(self, pids: Mapping[int, int]) -> int | None:
        """To be called at least once a second; returns the rank of a worker that has stood still for long.

        pids: of those who are waited for, by rank.
        """
        now = time.monotonic()
        if now < self._next_s:
            return None
        self._next_s = now + LOOK_EVERY_S / 2
        self._looks = {rank: self._looks.get(rank, 0) + 1 for rank, pid in pids.items() if is_stopped(pid)}
        return next((rank for rank, looks in self._looks.items() if looks >= _LOOKS_IN_VAIN), None)


def loss_by_standstill(rank: int, peer: Hello) -> WorkerLost:
    """What to tell of a worker that stands still."""
    return WorkerLost(
        f"Worker {rank} (host {peer.host}, pid {peer.pid}) was stopped by a signal (such as SIGSTOP) and has not gone "
        f"on for {_LOOKS_IN_VAIN * LOOK_EVERY_S:.0f} s."
    )


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
            raise Aborted from None

    @contextmanager
    def to(self, handler: EventHandler) -> Iterator[None]:
        """Pass events to `handler` meanwhile, and raise in the end what it raised."""
        self._handler, self._error = handler, None
        yield
        if self._error is not None:
            raise self._error

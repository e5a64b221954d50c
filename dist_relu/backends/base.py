"""What a backend is: how workers start, and how calls and replies travel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from dist_relu.worker import Call, Hello, Raised, Reply, Returned

GRACE_AFTER_ERROR_S = 0.5
"""How long the other workers may take to answer when one has failed; then the error is raised without them."""

EventHandler = Callable[[Any], None]


class Backend(ABC):
    """A set of workers that run calls together.  Used by one coordinator, from one thread."""

    @property
    @abstractmethod
    def name(self) -> str:
        """As the user writes it: "serial", "local", "mpi"."""

    @property
    @abstractmethod
    def peers(self) -> Sequence[Hello]:
        """The workers, by rank."""

    @abstractmethod
    def call(self, call: Call, on_event: EventHandler) -> list[Any]:
        """Run the call on all workers; returns what they returned, by rank.

        Events that workers report meanwhile go to `on_event`, in this thread. Raises what the first failing worker
        raised, with a note that names it, or WorkerLost. After an exception of a worker the others are free for the
        next call; after WorkerLost the backend can only be closed.
        """

    @abstractmethod
    def close(self) -> None:
        """End or release all workers, whatever they do.  May be called twice."""


def values(replies: Sequence[Reply]) -> list[Any]:
    """What the workers returned; raises the first error among the replies."""
    for reply in replies:
        if isinstance(reply, Raised):
            raise reply.error
    return [reply.value for reply in replies if isinstance(reply, Returned)]

"""What every run has on the nodes, however its steps are taken: samples, arrays, and what workers keep of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any, final

from dist_relu.data import Dataset
from dist_relu.engine.loop import NotKept, forget_run
from dist_relu.engine.site import Site
from dist_relu.errors import BackendError
from dist_relu.nn import Loss, Sequential
from dist_relu.runtime.world import World

_numbers = itertools.count()


@final
class KeptRun:
    """A run of which workers keep something from task to task.

    number: of all runs of this process; workers know by it what they have kept.  placed: the data, where they are.
    replicas: makes arrays that end with the run.
    """

    def __init__(self, site: Site, model: Sequential, data: Dataset, loss: Loss) -> None:
        self._run = site.run
        self.number = next(_numbers)
        self._is_kept = False
        self.placed = site.place(data, model, loss)
        self._call = ExitStack()
        self.replicas = self._call.enter_context(site.replicas.for_a_call())
        self.placed.x.broadcast()
        self.placed.y.broadcast()

    def take(
        self,
        function: Callable[[World, Any], Any],
        request: Any,
        on_event: Callable[[Any], object] | None = None,
    ) -> list[Any]:
        """Run function(world, request) on every worker, and return what they return.

        request: has the number of the run, and the `setup`, which is left out where workers have kept what it makes:
        where they have not been busy with another run since.
        """
        if self._is_kept:
            replies = self._run(function, replace(request, setup=None), on_event)
            if not isinstance(replies[0], NotKept):
                return replies
        self._is_kept = True
        return self._run(function, request, on_event)

    def close(self) -> None:
        """Free the memory of the run on all nodes."""
        if self._is_kept:
            self._is_kept = False
            with suppress(BackendError):
                self._run(forget_run, self.number)
        with suppress(BackendError):
            self._call.close()

    def abandon(self, error: BaseException) -> None:
        """Leave the memory to workers that may be stuck; it is freed behind that."""
        self._is_kept = False
        self._call.__exit__(type(error), error, error.__traceback__)

"""Sides of a comparison.  Each has processes of its own, in which nothing but its libraries is loaded and set up."""

from __future__ import annotations

import multiprocessing
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from operator import methodcaller
from time import perf_counter
from typing import Any, final
from unittest.mock import patch

from dist_relu.bench.cases import Beginning, Case
from dist_relu.errors import BackendError

UNKNOWN = "(it does not tell)"
"""What a side says whose library does not tell which instruction set it uses."""

_WARM_UP = 1
"""So many steps come before those that are timed: others have used the caches meanwhile."""


class Side(ABC):
    """A side trains a case by SGD with momentum, on one batch after another; all sides begin with the same numbers."""

    @abstractmethod
    def instruction_set(self) -> str:
        """Say which instruction set it uses here: "AVX2", "AVX-512", or what else its library calls it."""

    @abstractmethod
    def prepare(self, case: Case, beginning: Beginning) -> None:
        """Make ready to train a case from the numbers that all sides begin with."""

    @abstractmethod
    def train(self, num_steps: int) -> float:
        """Go on for so many steps, and wait until they are done; returns the loss of the last batch before its step."""


@dataclass(frozen=True)
class Start:
    """How a side starts: in so many processes, each of which calls `make` with its number.

    make: importable, with a side as the value of its context; there it may still set what its library reads later.
    """

    make: Callable[[int], AbstractContextManager[Side]]
    processes: int = 1


@final
class RunningSide:
    """A side whose processes run, and do together what they are asked for.  pids: of those that were started for it."""

    def __init__(self, name: str, connections: list[Connection], pids: list[int]) -> None:
        self._name = name
        self._connections = connections
        self.pids = pids

    def instruction_set(self) -> str:
        """See `Side`."""
        return str(self.ask(methodcaller("instruction_set")))

    def prepare(self, case: Case, beginning: Beginning) -> None:
        """See `Side`."""
        self.ask(methodcaller("prepare", case, beginning))

    def step_ms(self, num_steps: int) -> float:
        """Train for so many steps; returns what each takes on average."""
        return float(self.ask(_Timed(num_steps)))

    def ask(self, question: Callable[[Any], Any]) -> Any:
        """Return what `question` has to say of the side, in its first process; it is put to all of them."""
        try:
            for connection in self._connections:
                connection.send(question)
            first, *_ = [connection.recv() for connection in self._connections]
        except (EOFError, ConnectionError) as error:
            raise BackendError(f"{self._name} has ended; what went wrong there stands above.") from error
        return first


@dataclass(frozen=True)
class _Timed:
    """Trains, and tells how many milliseconds a step takes."""

    num_steps: int

    def __call__(self, side: Side) -> float:
        side.train(_WARM_UP)
        begin = perf_counter()
        side.train(self.num_steps)
        return (perf_counter() - begin) / self.num_steps * 1e3


@contextmanager
def running(name: str, start: Start, cores: Collection[int], environment: Mapping[str, str]) -> Iterator[RunningSide]:
    """Start a side on some cores, with some variables set.  It ends with the context."""
    context = multiprocessing.get_context("spawn")
    resource_tracker.ensure_running()  # which would let Ctrl-C through, were it started with the first process
    connections, processes = [], []
    try:
        for number in range(start.processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, start.make, number, cores), daemon=True)
            with patch.dict(os.environ, environment), _blocked_interrupts():
                process.start()
            theirs.close()
            connections.append(ours)
            processes.append(process)
        yield RunningSide(name, connections, [process.pid for process in processes if process.pid])
    except BaseException:
        for process in processes:
            process.terminate()  # to wait for what it is at, such as its imports, would be of no use
        raise
    finally:
        for connection in connections:
            connection.close()
        for process in processes:
            process.join(10)
            process.terminate()
            process.join()


@contextmanager
def _blocked_interrupts() -> Iterator[None]:
    """Block Ctrl-C meanwhile, and for good in the processes that are started: who asks them gets it, too."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(
    connection: Connection, make: Callable[[int], AbstractContextManager[Side]], number: int, cores: Collection[int]
) -> None:
    """Answer questions until nobody is there to ask any."""
    os.sched_setaffinity(0, cores)
    with make(number) as side:
        while True:
            try:
                question = connection.recv()
            except (EOFError, ConnectionError):
                return
            answer = question(side)
            with suppress(ConnectionError):  # nobody waits for it any more
                connection.send(answer)

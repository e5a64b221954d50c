"""What every process runs: calls from the coordinator, one after another, and what becomes of their errors.

A call is a plain function of (world, request); every worker of a call runs the same function on the same request
and finds its part of the work by its rank. How calls and replies travel is the backend's business.
"""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import cloudpickle
import numpy as np
from threadpoolctl import ThreadpoolController

from dist_relu.collectives.barrier import Aborted, Barrier
from dist_relu.collectives.memory import Handle, attach


@dataclass(frozen=True)
class Hello:
    """How a process presents itself.  node: equal for processes that can share memory."""

    pid: int
    host: str
    node: str

    @classmethod
    def here(cls) -> Hello:
        boot = _read("/proc/sys/kernel/random/boot_id")
        processes = os.readlink("/proc/self/ns/pid")
        return cls(os.getpid(), socket.gethostname(), f"{boot} {processes} {os.getuid()}")


@dataclass(frozen=True)
class Setup:
    """What a process must know to be worker `rank`; control: shared, see `Barrier`."""

    rank: int
    peers: Sequence[Hello]
    control: Handle
    threads: int


@dataclass(frozen=True)
class World:
    """A worker's view of all workers.  report: sends an event to the coordinator."""

    rank: int
    size: int
    barrier: Barrier
    report: Callable[[Any], None]


@dataclass(frozen=True)
class Call:
    """Work for all workers: function(world, request), pickled.  Numbers grow."""

    number: int
    work: bytes

    @classmethod
    def of(cls, number: int, function: Callable[[World, Any], Any], request: Any) -> Call:
        return cls(number, cloudpickle.dumps((function, request)))


@dataclass(frozen=True)
class Returned:
    """The worker's part is done."""

    value: Any


@dataclass(frozen=True)
class Raised:
    """The worker's part failed, and the other workers were told to stop."""

    error: BaseException


@dataclass(frozen=True)
class Stopped:
    """The worker stopped because another one failed."""


Reply = Returned | Raised | Stopped


@final
class Worker:
    """A process that takes part in calls."""

    def __init__(self, setup: Setup, report: Callable[[Any], None]) -> None:
        self._setup = setup
        self._barrier = Barrier(attach(setup.control), setup.rank, [peer.pid for peer in setup.peers])
        self._world = World(setup.rank, len(setup.peers), self._barrier, report)
        self._blas = ThreadpoolController().select(user_api="blas")

    def run(self, call: Call) -> bytes:
        """Run this worker's part of a call; returns the pickled reply, and whatever goes wrong is in it.

        KeyboardInterrupt and SystemExit, which are meant for the process, stop the others and go on.
        """
        self._barrier.begin(call.number)
        try:
            # What overflows shows in the results; a warning in a worker reaches nobody.
            with self._blas.limit(limits=self._setup.threads), np.errstate(all="ignore"):
                function, request = cloudpickle.loads(call.work)
                reply: bytes = cloudpickle.dumps(Returned(function(self._world, request)))
            self._barrier.check()  # nobody waits for the value of a call that was given up
            return reply
        except Aborted:
            self._barrier.abort()
            return cloudpickle.dumps(Stopped())  # type: ignore[no-any-return]
        except Exception as error:
            self._barrier.abort()
            return cloudpickle.dumps(Raised(self._signed(error)))  # type: ignore[no-any-return]
        except BaseException:
            self._barrier.abort()
            raise

    def close(self) -> None:
        self._barrier.close()

    def _signed(self, error: Exception) -> Exception:
        """`error` with this worker's name on it, in a form that survives the way to another process."""
        me = self._setup.peers[self._setup.rank]
        where = f"Raised by worker {self._setup.rank} of {self._world.size} (host {me.host}, pid {me.pid})."
        trace = "".join(traceback.format_exception(error)).rstrip()
        try:
            copy: Exception = cloudpickle.loads(cloudpickle.dumps(error))
            same = type(copy) is type(error)
        except Exception:
            same = False
        if not same:
            copy = RuntimeError(f"{type(error).__name__}: {error}")
        copy.__notes__ = [where, trace]
        return copy


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read().strip()

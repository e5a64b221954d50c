"""How the processes of a node wait for one another, and stop waiting when something is wrong."""

from __future__ import annotations

import os
import select
import socket
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import final

import numpy as np

from dist_relu.comm.marks import WAIT, Marks
from dist_relu.comm.stall_detector import StallDetector
from dist_relu.comm.stop_detector import WORKER_TIMEOUT_S, StopDetector
from dist_relu.core.arrays import Array
from dist_relu.errors import WorkerLost
from dist_relu.kernels import atomic
from dist_relu.kernels.tape import until_done

_MEETINGS_PER_TASK = 1 << 32

ALL_TASKS = 1 << 62
"""What to give up when there will be no task any more."""


class TaskAborted(Exception):
    """Another process gave up this task, and reports the cause."""


class Barrier(ABC):
    """A barrier is where workers wait for one another."""

    @abstractmethod
    def wait(self) -> None:
        """Wait until every worker has come as far.  Collective.

        Raises TaskAborted when the task was given up, WorkerLost when a worker died or was stopped.
        """

    @abstractmethod
    def check(self) -> None:
        """Raise TaskAborted when the task was given up: for long work between two waits."""


def control_shape(num_ranks: int) -> tuple[int, ...]:
    """Return the shape of a barrier's shared int64 array, which has a line to abort and then one for each rank."""
    return ((num_ranks + 1) * atomic.WORDS_PER_LINE,)


@final
class NodeBarrier(Barrier):
    """A barrier for the processes of a node, which notices that a peer died or gave up.

    Work comes in tasks, numbered from 1 upwards. Within a task every rank must wait equally often; a task may be
    given up at any time, and a later one starts afresh: meetings are only counted up, so nothing is ever reset.
    stall_detector: is called while this one waits.  first: the number among all workers of the node's first one.
    marks: get each wait, while there are some.
    worker_timeout_s: how long a peer may stand still before it counts as lost.
    """

    def __init__(
        self,
        control: Array,
        rank: int,
        pids: Sequence[int],
        stall_detector: StallDetector | None = None,
        *,
        first: int = 0,
        worker_timeout_s: float = WORKER_TIMEOUT_S,
    ) -> None:
        self._control = control
        self._abort = control[: atomic.WORDS_PER_LINE]
        self._flags = control[atomic.WORDS_PER_LINE :]
        self._rank = rank
        self._pids = pids
        self._deaths = select.poll()
        self._rank_of: dict[int, int] = {}
        self._died_before: int | None = None
        for peer, pid in enumerate(pids):
            if pid != os.getpid():
                try:
                    descriptor = os.pidfd_open(pid)
                except ProcessLookupError:
                    self._died_before = peer
                    continue
                self._rank_of[descriptor] = peer
                self._deaths.register(descriptor, select.POLLIN)
        self._others = {first + peer: pid for peer, pid in enumerate(pids) if pid != os.getpid()}
        self._stop_detector = StopDetector(worker_timeout_s, control, first)
        self._first = first
        self.stall_detector = stall_detector
        self.marks: Marks | None = None
        self._now = np.zeros(2, np.int64)
        num_awaited = len(pids) if len(pids) > 1 else 0
        self._awaited = self._flags, num_awaited, self._now, self._abort

    def begin(self, task: int) -> None:
        """Start task number `task`."""
        self._now[atomic.MEETING] = task * _MEETINGS_PER_TASK
        self._now[atomic.CALL] = task

    def wait(self) -> None:
        marks = self.marks if len(self._pids) > 1 else None
        if marks:
            marks.enter(WAIT)
        if len(self._pids) > 1:
            atomic.arrive(self._flags, self._rank, self._now)
        until_done(atomic.wait_for_all, *self._awaited, attend=self._look_after_peers)
        if marks:
            marks.resume()

    def alone(self) -> NodeBarrier:
        """Return a barrier of this process alone, at which it also notices that its present task was given up."""
        lone = NodeBarrier(self._control, self._rank, [os.getpid()], first=self._first)
        lone._now = self._now  # so that tasks begin for both
        lone._awaited = self._flags, 0, self._now, self._abort
        return lone

    def check(self) -> None:
        if self._abort[0] >= self._now[atomic.CALL]:
            raise TaskAborted

    def abort(self) -> None:
        """Give up the present task for all ranks."""
        abort(self._abort, int(self._now[atomic.CALL]))

    def close(self) -> None:
        for descriptor in self._rank_of:
            os.close(descriptor)
        self._rank_of.clear()

    def _look_after_peers(self, outcome: int) -> None:
        """Wait for peers that are late, or find out that they will not come."""
        meeting = int(self._now[atomic.MEETING])
        while outcome == atomic.WAITING:
            self._check_peers()
            if self.stall_detector:
                self.stall_detector.check(meeting, int(self._now[atomic.CALL]))
            outcome = atomic.wait_for_all(*self._awaited)
        if outcome == atomic.ABORTED:
            raise TaskAborted
        if self.stall_detector:
            self.stall_detector.passed()

    def _check_peers(self) -> None:
        dead = [self._rank_of[descriptor] for descriptor, _ in self._deaths.poll(0)]
        if self._died_before is not None:
            dead.append(self._died_before)
        for peer in dead:
            name, us = self._first + peer, self._first + self._rank
            raise WorkerLost(f"Worker {name} (pid {self._pids[peer]}) died; worker {us} waited for it.")
        self._stop_detector.check(self._others, socket.gethostname())


def abort(control: Array, task: int) -> None:
    """Give up task number `task`, from outside: whoever waits in it stops waiting."""
    atomic.give_up(control, task)

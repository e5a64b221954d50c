"""The workers of a backend, as the user's process has them: they take one task at a time, and share arrays."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, final

from dist_relu.comm.stall_detector import Resumed, Stalled
from dist_relu.core.compiling import Compiling
from dist_relu.core.progress_log import PROGRESS_LOG
from dist_relu.errors import BackendError, NoRoom, WorkerLost
from dist_relu.runtime.backends.base import Backend, EventHandler, ignore_event, run_task
from dist_relu.runtime.jobs import Board
from dist_relu.runtime.late_replies import LateReplies
from dist_relu.runtime.process_info import ProcessInfo, nodes_of
from dist_relu.runtime.recovery import FailurePolicy, Recovery
from dist_relu.runtime.replicated import Ask, ReplicatedArrays
from dist_relu.runtime.worker import Task
from dist_relu.runtime.world import World

_log = logging.getLogger(PROGRESS_LOG)

_LOOK_EVERY_S = 3.0
"""How often it is asked whether there is room for more workers."""

_taken: weakref.WeakSet[Backend] = weakref.WeakSet()
"""The backends that have been given to somebody."""


@final
class Workers:
    """All workers of a backend.  They end, or are released, with `close` or with this object.

    A call in which one is lost raises WorkerLost; with the next one the others are whole again, as the policy says.
    Methods raise BackendError in a process that was forked from the one which has started them.
    board: where `dist-relu status` reads of them.
    recoveries: what was lost so far, and how it went on.  generation: how often the workers have become others.
    """

    def __init__(self, backend: Backend, policy: FailurePolicy | None = None) -> None:
        """Raises ValueError when these workers have a coordinator already: both would number their tasks from 1."""
        if backend in _taken:
            raise ValueError(f"This {type(backend).__name__} has a coordinator already. Use that, or start workers.")
        _taken.add(backend)
        self._backend, self._policy = backend, policy or FailurePolicy(most=backend.num_workers)
        self._next_look = 0.0
        self.recoveries: list[Recovery] = []
        self.generation = 0
        self._loss: WorkerLost | None = None
        self._regrouping = threading.RLock()
        self._process = os.getpid()
        self.board = Board()
        self._on_board: Sequence[ProcessInfo] = ()  # the workers that are
        self._stall: Stalled | None = None  # of the present call
        self._num_tasks = 0
        self._has_told_of_compiling = False
        self._one_at_a_time = threading.Lock()
        self._caller: int | None = None  # the thread whose task the workers are busy with
        self._replicas: ReplicatedArrays | None = None
        self._finalizer = weakref.finalize(self, _close_in, self._process, backend)

    @property
    def backend(self) -> str:
        """The backend's name."""
        return self._backend.name

    @property
    def peers(self) -> Sequence[ProcessInfo]:
        """The processes, by rank.  Waits until all are there."""
        self._check_process()
        with self._regrouping:
            if self._loss:
                self.recover()
            try:
                return self._backend.peers
            except WorkerLost as loss:
                self._loss = loss
                self.recover()
            return self._backend.peers

    @property
    def replicas(self) -> ReplicatedArrays:
        """Makes arrays that every node has a copy of."""
        self._check_process()
        _ = self.peers  # they may have to become others
        if self._replicas is None:
            nodes = nodes_of(self.peers)
            ask = self._ask_of(self.generation)
            replicas = ReplicatedArrays(nodes, self._backend.coordinator_node, ask, self.backend)
            with self._one_at_a_time:  # another thread may have been faster
                self._replicas = self._replicas or replicas
        return self._replicas

    @property
    def can_regroup(self) -> bool:
        """Whether there can be more or fewer of them."""
        return self._backend.can_regroup

    @property
    def are_closed(self) -> bool:
        return not self._finalizer.alive

    def recover(self, step: int | None = None) -> None:
        """Make the workers whole again after a loss, or raise it.  step: the one that is to be done again."""
        self.check_open()
        with self._regrouping:
            loss = self._loss
            if not loss:
                return  # another thread was faster
            noticed, began = time.time(), time.monotonic()
            before = number = self._backend.num_workers
            while self._loss:
                if not self._backend.can_regroup:
                    raise self._loss
                self._policy.check(self._loss)
                if self._policy.on_failure == "shrink":
                    number -= max(len(self._loss.ranks), 1)
                try:
                    self._regroup(self._policy.at_least(number, self._loss))
                except NoRoom as error:
                    number = self._policy.at_least(error.room, self._loss)
            seconds = time.monotonic() - began
            workers = before, self._backend.num_workers
            recovery = Recovery(loss=str(loss), time=noticed, seconds=seconds, step=step, workers=workers)
            self.recoveries.append(recovery)
            self.board.note(recoveries=[str(each) for each in self.recoveries])
        _log.warning(str(recovery))

    def resize(self, workers: int) -> None:
        """Be so many workers from now on."""
        self.check_open()
        with self._regrouping:
            if workers != len(self.peers):
                self._policy.most = workers
                self._regroup(workers)
                if self._loss:
                    self.recover()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Let workers that are too many wait for the next `resize` within a block of code, and end behind it."""
        self._backend.keep_spare(keeps=True)
        try:
            yield
        finally:
            self._backend.keep_spare(keeps=False)

    def adapt(self, useful: int) -> None:
        """Be as many workers as the policy allows and there is room for, if that are more than there are.

        To be called between steps; looks every few seconds.  useful: there is work for no more.
        """
        now = time.monotonic()
        number, most = self._backend.num_workers, min(self._policy.most, useful)
        if number >= most or now < self._next_look:
            return
        self._next_look = now + _LOOK_EVERY_S
        room = self._backend.room()
        if room is not None and room > number:
            with suppress(NoRoom), self._regrouping:
                self._regroup(min(room, most))
                _log.warning(f"There is room for more workers: {self._backend.num_workers} instead of {number}.")

    def note_progress(self) -> None:
        """Note that something was done since workers were lost; see `FailurePolicy`."""
        self._policy.note_progress()

    def _regroup(self, workers: int) -> None:
        """Become so many workers.  Leaves the loss where another one dies meanwhile."""
        try:
            self._backend.regroup(workers)
            self._loss = None
        except WorkerLost as loss:
            self._loss = loss
        finally:
            self._replicas = None
            self.generation += 1

    def check_open(self) -> None:
        """Raise an error when they can't be used, or not from this process."""
        self._check_process()
        if self.are_closed:
            raise RuntimeError("This coordinator is closed. Start another one with dist_relu.start().")

    def run(
        self,
        ranks: Sequence[int],
        function: Callable[[World, Any], Any],
        request: Any,
        on_event: EventHandler = ignore_event,
    ) -> list[Any]:
        """Run function(world, request) on these workers; see `run_task`."""
        self.check_open()
        if self._caller == threading.get_ident():
            raise RuntimeError(
                "The workers are busy with the call that this was called from. Call them when it has returned."
            )
        with self._one_at_a_time:
            if self._loss:
                raise self._loss
            self._caller = threading.get_ident()
            self._stall = None
            try:
                self._num_tasks += 1
                task = Task.of(self._num_tasks, function, request)
                self._update_board()
                late_replies = LateReplies(self._backend, ranks, self._hear_of_stall)
                return run_task(
                    self._backend, task, ranks, lambda event: self._hear(event, on_event), late_replies.check
                )
            except KeyboardInterrupt as interrupt:
                if self._stall:
                    interrupt.add_note(self._stall.text)
                raise
            except WorkerLost as loss:
                self._loss = loss
                raise
            finally:
                self._caller = None

    def _ask_of(self, generation: int) -> Ask:
        """Run functions on some of the workers, as long as these are the same."""

        def ask(ranks: Sequence[int], function: Callable[[World, Any], Any], request: Any) -> list[Any]:
            if generation != self.generation:
                raise BackendError("The workers have become others since.")
            return self.run(ranks, function, request)

        return ask

    def close(self) -> None:
        """End them, or release them.  May be called twice."""
        self._finalizer()
        self.board.close()

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise BackendError(
                f"The workers belong to process {self._process}, from which this one was forked; both would disturb "
                "each other. Start workers of this process's own with dist_relu.start()."
            )

    def _update_board(self) -> None:
        """Put up who the workers are, when these are others than before."""
        backend, peers = self._backend, self._backend.peers
        if peers is not self._on_board and backend.control:
            self._on_board = peers
            self.board.note_workers(backend.name, peers, backend.coordinator_node, backend.control)

    def _hear(self, event: Any, on_event: EventHandler) -> None:
        if isinstance(event, Stalled | Resumed):
            self._hear_of_stall(event)
        elif not isinstance(event, Compiling):
            on_event(event)
        elif not self._has_told_of_compiling:
            self._has_told_of_compiling = True
            _log.warning("Compiling kernels, once for this machine (about half a minute).")

    def _hear_of_stall(self, event: Stalled | Resumed) -> None:
        self._stall = event if isinstance(event, Stalled) else None
        _log.warning(event.text)


def _close_in(process: int, backend: Backend) -> None:
    """Close `backend` in the process that has started it; one that was forked from it has no workers."""
    if os.getpid() == process:
        backend.close()

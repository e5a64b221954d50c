"""Workers as processes of this machine.

Each has a socket to the coordinator. How they start and who ends them: see `processes`.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from multiprocessing.connection import wait
from typing import final

import cloudpickle

from dist_relu.comm import barrier, whereabouts
from dist_relu.comm.shared_memory import Handle, SharedArray
from dist_relu.comm.stall_detector import SLOW_AFTER_S
from dist_relu.comm.stop_detector import CHECK_PERIOD_S, WORKER_TIMEOUT_S, StopDetector
from dist_relu.core.machine import how_it_ended, is_stopped, num_cores
from dist_relu.errors import BackendError, WorkerLost
from dist_relu.runtime.backends.base import Backend, EventHandler, check_workers
from dist_relu.runtime.backends.interrupts import without_interrupts
from dist_relu.runtime.backends.local.members import Member, groups_of, start_members
from dist_relu.runtime.backends.local.worker import REPLY
from dist_relu.runtime.process_info import ProcessInfo
from dist_relu.runtime.worker import Reply, Task, WorkerConfig

_START_TIMEOUT_S = 60.0
_TIME_TO_GIVE_UP_S = 10.0
"""How long a worker may go on with a task that was given up, before another one takes its place."""

_CLOSED = "The workers were ended by close(). Start others."
_INTERRUPTED = "The workers were stopped while they started. Start others."


@final
class LocalBackend(Backend):
    """`workers` processes, by default one for each physical core that this process may use.

    worker_timeout_s: how long one may stand still before it counts as lost, see `StopDetector`.
    slow_after_s: how long others wait for one before they say so.
    """

    can_regroup = True

    def __init__(
        self,
        workers: int | None = None,
        threads_per_worker: int = 1,
        *,
        worker_timeout_s: float = WORKER_TIMEOUT_S,
        slow_after_s: float = SLOW_AFTER_S,
    ) -> None:
        workers, threads_per_worker = check_workers(workers, threads_per_worker)
        self._num_workers = max(num_cores() // threads_per_worker, 1) if workers is None else workers
        self._control = SharedArray(barrier.control_shape(self._num_workers), "int64")
        self._threads_per_worker = threads_per_worker
        self.slow_after_s = slow_after_s
        self._lost: BackendError | None = None
        self._busy: set[int] = set()
        self._is_closed = False
        self._peers: list[ProcessInfo] = []
        self._starting = threading.RLock()
        self._worker_timeout_s = worker_timeout_s
        self._stop_detector = StopDetector(worker_timeout_s, self._control.array)
        self._members = start_members(self._num_workers, threads_per_worker)  # by rank
        self._keeps_spare = False
        self._spare: list[Member] = []  # that wait for a place

    @property
    def name(self) -> str:
        return "local"

    @property
    def num_workers(self) -> int:
        return self._num_workers

    @property
    def peers(self) -> Sequence[ProcessInfo]:
        """Return the workers, by rank.  Waits until they have started: they do so while the user's script goes on."""
        with self._starting:
            if self._lost:
                raise self._lost
            if not self._peers:
                self._form()
        return self._peers

    @property
    def coordinator_node(self) -> int:
        return 0

    @property
    def control(self) -> Handle:
        return self._control.handle

    @property
    def busy(self) -> Collection[int]:
        return self._busy

    def send(self, task: Task, ranks: Sequence[int]) -> None:
        _ = self.peers  # all have started, and none was lost
        self._check_ended(range(len(self._members)))  # between two tasks
        message = cloudpickle.dumps(task)
        for rank in ranks:
            with without_interrupts():
                try:
                    self._members[rank].connection.send_bytes(message)
                except (BrokenPipeError, ConnectionResetError):
                    raise self._loss_of(rank) from None
                self._busy.add(rank)

    def receive(self, timeout_s: float, on_event: EventHandler) -> Mapping[int, Reply]:
        _ = self.peers  # as above
        messages = {}
        for rank in self._wait_for(self._busy, min(timeout_s, CHECK_PERIOD_S)):
            with without_interrupts():
                try:
                    messages[rank] = self._members[rank].connection.recv_bytes()
                except (EOFError, ConnectionResetError):
                    raise self._loss_of(rank) from None
                if messages[rank][:1] == REPLY:
                    self._busy.remove(rank)
                    del self._members[rank].controls[:-1]
        self._check_stopped({rank: self._peers[rank].pid for rank in self._busy})
        replies: dict[int, Reply] = {}
        for rank, message in messages.items():
            content = cloudpickle.loads(memoryview(message)[1:])
            if message[:1] == REPLY:
                replies[rank] = content
            else:
                on_event(content)
        return replies

    def abort(self, number: int) -> None:
        barrier.abort(self._control.array, number)

    def regroup(self, workers: int) -> None:
        with self._starting:
            if self._is_closed:
                raise BackendError(_CLOSED)
            self._num_workers = workers
            try:
                self._let_go(workers)
                if missing := workers - len(self._members):
                    self._members += start_members(missing, self._threads_per_worker)
                self._control = SharedArray(barrier.control_shape(workers), "int64")
                self._stop_detector = StopDetector(self._worker_timeout_s, self._control.array)
                self._lost = None
            except BaseException:
                self._lost = BackendError(_INTERRUPTED)
                self.close()
                raise
            self._form()

    def keep_spare(self, *, keeps: bool) -> None:
        with self._starting:
            self._keeps_spare = keeps
            if not keeps:
                self._keep(self._members, [])

    def close(self) -> None:
        self._is_closed = True
        if not self._peers and not self._lost:
            self._lost = BackendError(_CLOSED)
        for processes in groups_of([*self._members, *self._spare]):
            processes.end(at_once=not self._peers)
        self._spare = []

    def _form(self) -> None:
        """Make workers that know one another of the members.  A death leaves these to be regrouped."""
        try:
            self._peers = self._bootstrap()
        except WorkerLost as loss:
            self._lost = loss
            raise
        except BaseException as error:
            self._lost = error if isinstance(error, BackendError) else BackendError(_INTERRUPTED)
            self.close()
            raise

    def _bootstrap(self) -> list[ProcessInfo]:
        """Wait for all processes, and make them workers that know one another."""
        self._peers = []
        deadline = time.monotonic() + _START_TIMEOUT_S
        while missing := [rank for rank, member in enumerate(self._members) if member.info is None]:
            if time.monotonic() > deadline:
                raise BackendError(f"Worker {missing[0]} did not start within {_START_TIMEOUT_S:.0f} seconds.")
            for rank in self._wait_for(missing, min(deadline - time.monotonic(), CHECK_PERIOD_S)):
                try:
                    self._members[rank].info = self._members[rank].connection.recv()
                except (EOFError, ConnectionResetError):
                    raise self._loss_of(rank) from None
            pids = {rank: self._members[rank].pid for rank in missing}
            self._check_stopped({rank: pid for rank, pid in pids.items() if pid is not None})
        peers = [member.info for member in self._members if member.info]
        for rank, member in enumerate(self._members):
            member.controls.append(self._control)
            with without_interrupts():
                try:
                    member.connection.send_bytes(
                        cloudpickle.dumps(
                            WorkerConfig(
                                rank=rank,
                                peers=peers,
                                control=self._control.handle,
                                threads=self._threads_per_worker,
                                slow_after_s=self.slow_after_s,
                                worker_timeout_s=self._worker_timeout_s,
                            )
                        )
                    )
                except (BrokenPipeError, ConnectionResetError):
                    raise self._loss_of(rank) from None
        return peers

    def _let_go(self, workers: int) -> None:
        """Keep the first `workers` members that live and answer, and end all others."""
        self._wait_until_idle()
        kept: list[Member] = []
        spare: list[Member] = []
        self._peers = []
        for member in [*self._members, *self._spare]:
            if member.has_ended or member.loss:
                member.kill()  # it may only have hung up
            elif len(kept) < workers:
                kept.append(member)
            elif self._keeps_spare:
                spare.append(member)
        self._keep(kept, spare)

    def _keep(self, members: list[Member], spare: list[Member]) -> None:
        """Let all others end that live still."""
        before, self._members, self._spare = [*self._members, *self._spare], members, spare
        for member in before:
            if member not in members and member not in spare and not member.has_ended:
                member.hang_up()
        needed = groups_of([*members, *spare])
        for processes in groups_of(before):
            if processes not in needed:
                processes.end(at_once=False)

    def _wait_until_idle(self) -> None:
        """Wait until nobody is busy with what was given up; who does not come counts as lost."""
        deadline = time.monotonic() + _TIME_TO_GIVE_UP_S
        while self._busy:
            members = {rank: self._members[rank] for rank in self._busy}
            ended = [rank for rank, member in members.items() if member.loss or member.has_ended]
            stuck = [rank for rank, member in members.items() if member.info and is_stopped(member.info.pid)]
            if time.monotonic() > deadline:
                stuck += members
            for rank in {*ended, *stuck}:
                members[rank].loss = members[rank].loss or "did not answer"
                self._busy.remove(rank)
            if ended or stuck:
                continue
            here = {id(members[rank].connection): rank for rank in self._busy}
            for connection in wait([members[rank].connection for rank in self._busy], 0.1):
                rank = here[id(connection)]
                with without_interrupts():
                    try:
                        if members[rank].connection.recv_bytes()[:1] == REPLY:
                            self._busy.remove(rank)
                    except (EOFError, ConnectionResetError):
                        members[rank].loss = "has hung up"
                        self._busy.remove(rank)

    def _wait_for(self, ranks: Iterable[int], timeout_s: float) -> list[int]:
        """Wait for these ranks; returns those that have sent something.  Raises the loss of one that has ended."""
        connections = {id(self._members[rank].connection): rank for rank in ranks}
        sources = [self._members[rank].connection for rank in connections.values()]
        news = [processes.news for processes in groups_of(self._members)]
        ready = wait([*sources, *news], timeout_s)
        ready_ranks = [connections[id(source)] for source in ready if id(source) in connections]
        # A process that a worker has forked may hold its socket, which then does not show its end.
        self._check_ended(set(connections.values()) - set(ready_ranks))
        return ready_ranks

    def _check_ended(self, ranks: Collection[int]) -> None:
        """Raise the loss of one of these that has ended, and sends nothing any more."""
        for rank in ranks:
            member = self._members[rank]
            if member.has_ended and (member.loss or rank not in self._busy or not member.connection.poll()):
                raise self._loss_of(rank)

    def _check_stopped(self, pids: Mapping[int, int]) -> None:
        """Raise the loss of one of these processes, by rank, that has been stopped for too long."""
        try:
            self._stop_detector.check(pids, socket.gethostname())
        except WorkerLost as loss:
            for rank in loss.ranks:
                self._members[rank].loss = str(loss)
            self._lost = loss
            raise

    def _loss_of(self, rank: int) -> BackendError:
        if self._is_closed:  # in another thread
            return BackendError(_CLOSED)
        member = self._members[rank]
        code = member.exit_code()
        if member.info is None:
            how = "hung up" if code is None else how_it_ended(code)
            member.loss = member.loss or f"Worker {rank} {how} while it started."
            if not member.was_killed:  # so would another one
                self._lost = BackendError(member.loss)
                return self._lost
        elif member.loss is None:
            how = "has hung up" if code is None else how_it_ended(code)
            where = whereabouts.read(self._control.array, rank)
            member.loss = f"Worker {rank} (host {member.info.host}, pid {member.info.pid}) {how}, {where}."
        loss = WorkerLost(member.loss)
        loss.ranks = [rank]
        self._lost = loss
        return loss

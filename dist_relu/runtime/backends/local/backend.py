"""Workers as processes of this machine.

Each has a socket to the coordinator. How they start and who ends them: see `processes`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from multiprocessing.connection import wait
from typing import Any, final

import cloudpickle

from dist_relu.comm import barrier
from dist_relu.comm.shared_memory import SharedArray
from dist_relu.comm.suspended import LOOK_EVERY_S, Standstill
from dist_relu.core.machine import how_it_ended, num_cores
from dist_relu.errors import BackendError, WorkerLost
from dist_relu.runtime.backends.base import GRACE_AFTER_ERROR_S, Backend, EventHandler, values
from dist_relu.runtime.backends.local.processes import LocalProcesses, without_interrupts
from dist_relu.runtime.backends.local.worker import REPLY
from dist_relu.runtime.process_info import ProcessInfo
from dist_relu.runtime.worker import Failed, Reply, Task, WorkerConfig

_START_TIMEOUT_S = 60.0
_CLOSED = "The workers were ended by close(). Start others."


@final
class LocalBackend(Backend):
    """`workers` processes, by default one for each physical core that this process may use."""

    def __init__(self, workers: int | None, threads_per_worker: int) -> None:
        num_workers = max(num_cores() // threads_per_worker, 1) if workers is None else workers
        self._control = SharedArray(barrier.control_shape(num_workers), "int64")
        self._threads_per_worker = threads_per_worker
        self._lost: BackendError | None = None
        self._owing: set[int] = set()  # ranks that have not answered yet
        self._is_closed = False
        self._infos: list[ProcessInfo] = []
        self._meeting = threading.Lock()
        self._standstill = Standstill()
        self._processes = LocalProcesses(num_workers, threads_per_worker)

    @property
    def name(self) -> str:
        return "local"

    @property
    def peers(self) -> Sequence[ProcessInfo]:
        """The workers, by rank.  Waits until they have started: they do so while the user's script goes on."""
        with self._meeting:
            if self._lost:
                raise self._lost
            if not self._infos:
                try:
                    infos = self._meet()
                except BaseException as error:
                    interrupted = BackendError("The workers were stopped while they started. Start others.")
                    self._lost = error if isinstance(error, BackendError) else interrupted
                    self.close()
                    raise
                self._infos = infos
        return self._infos

    @property
    def coordinator_node(self) -> int:
        return 0

    def call(self, call: Task, ranks: Sequence[int], on_event: EventHandler) -> list[Any]:
        _ = self.peers  # all have started, and none was lost
        try:
            while self._owing:  # ranks that are still busy with a call that was given up
                self._receive(_ignore, None)
            for rank in self._processes.ended():  # between two calls
                raise self._loss_of(rank)
            message = cloudpickle.dumps(call)
            for rank in ranks:
                self._send(rank, message)
            replies: dict[int, Reply] = {}
            deadline = None
            while self._owing and (deadline is None or time.monotonic() < deadline):
                replies |= self._receive(on_event, deadline)
                if deadline is None and any(isinstance(reply, Failed) for reply in replies.values()):
                    deadline = time.monotonic() + GRACE_AFTER_ERROR_S
        except BaseException:
            barrier.abort(self._control.array, call.number)
            raise
        return values([replies[rank] for rank in sorted(replies)])

    def close(self) -> None:
        self._is_closed = True
        if not self._infos and not self._lost:
            self._lost = BackendError(_CLOSED)
        self._processes.end(at_once=not self._infos)

    def _meet(self) -> list[ProcessInfo]:
        """Wait for all workers, and make them known to one another."""
        infos: dict[int, ProcessInfo] = {}
        everybody = range(len(self._processes.connections))
        deadline = time.monotonic() + _START_TIMEOUT_S
        while missing := [rank for rank in everybody if rank not in infos]:
            if time.monotonic() > deadline:
                raise BackendError(f"Worker {missing[0]} did not start within {_START_TIMEOUT_S:.0f} seconds.")
            for rank in self._wait_for(missing, deadline - time.monotonic()):
                try:
                    infos[rank] = self._processes.connections[rank].recv()
                except (EOFError, ConnectionResetError):
                    raise self._failure_of(rank) from None
        in_order = [infos[rank] for rank in everybody]
        for rank, connection in enumerate(self._processes.connections):
            with without_interrupts():
                try:
                    connection.send(WorkerConfig(rank, in_order, self._control.handle, self._threads_per_worker))
                except (BrokenPipeError, ConnectionResetError):
                    raise self._failure_of(rank) from None
        return in_order

    def _wait_for(self, ranks: Iterable[int], timeout_s: float) -> list[int]:
        """Those of these ranks who have something to say, after a wait; raises the loss of one that has ended."""
        connections = {id(self._processes.connections[rank]): rank for rank in ranks}
        sources = [self._processes.connections[rank] for rank in connections.values()]
        ready = wait([*sources, self._processes.news], timeout_s)
        speaking = [connections[id(source)] for source in ready if id(source) in connections]
        # A process that a worker has forked may hold its socket, which then does not tell of its end.
        for rank in self._processes.ended().keys() & set(connections.values()) - set(speaking):
            if not self._processes.connections[rank].poll():
                raise self._loss_of(rank) if self._infos else self._failure_of(rank)
        return speaking

    def _send(self, rank: int, message: bytes) -> None:
        with without_interrupts():
            try:
                self._processes.connections[rank].send_bytes(message)
            except (BrokenPipeError, ConnectionResetError):
                raise self._loss_of(rank) from None
            self._owing.add(rank)

    def _receive(self, on_event: EventHandler, deadline: float | None) -> dict[int, Reply]:
        """Wait for messages, for a while or until `deadline`; pass on the events and return the replies, by rank."""
        timeout_s = LOOK_EVERY_S if deadline is None else max(min(deadline - time.monotonic(), LOOK_EVERY_S), 0)
        messages = {}
        for rank in self._wait_for(self._owing, timeout_s):
            with without_interrupts():
                try:
                    messages[rank] = self._processes.connections[rank].recv_bytes()
                except (EOFError, ConnectionResetError):
                    raise self._loss_of(rank) from None
                if messages[rank][:1] == REPLY:
                    self._owing.remove(rank)
        self._look_for_standstill()
        replies = {}
        for rank, message in messages.items():
            content = cloudpickle.loads(memoryview(message)[1:])
            if message[:1] == REPLY:
                replies[rank] = content
            else:
                on_event(content)
        return replies

    def _look_for_standstill(self) -> None:
        try:
            self._standstill.look({rank: self._infos[rank].pid for rank in self._owing}, self._infos[0].host)
        except WorkerLost as loss:
            self._lost = loss
            raise

    def _failure_of(self, rank: int) -> BackendError:
        """What to tell of a worker that has hung up before it was one."""
        code = self._processes.exit_code(rank)
        how = "hung up" if code is None else f"ended with exit code {code}"
        return BackendError(f"Worker {rank} {how} while it started.")

    def _loss_of(self, rank: int) -> BackendError:
        if self._is_closed:  # in another thread
            return BackendError(_CLOSED)
        peer, code = self._infos[rank], self._processes.exit_code(rank)
        how = "has hung up" if code is None else how_it_ended(code)
        self._lost = WorkerLost(f"Worker {rank} (host {peer.host}, pid {peer.pid}) {how}.")
        return self._lost


def _ignore(event: object) -> None:
    pass

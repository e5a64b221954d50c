"""Workers as processes of this machine.

Each has a socket to the coordinator. How they start and who ends them: see `processes`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from multiprocessing.connection import wait
from typing import final

import cloudpickle

from dist_relu.comm import barrier
from dist_relu.comm.shared_memory import Handle, SharedArray
from dist_relu.comm.stall_detector import SLOW_AFTER_S
from dist_relu.comm.stop_detector import CHECK_PERIOD_S, STOPPED_TIMEOUT_S, StopDetector
from dist_relu.core.machine import how_it_ended, num_cores
from dist_relu.errors import BackendError, WorkerLost
from dist_relu.runtime.backends.base import Backend, EventHandler, check_workers
from dist_relu.runtime.backends.interrupts import without_interrupts
from dist_relu.runtime.backends.local.processes import LocalProcesses
from dist_relu.runtime.backends.local.worker import REPLY
from dist_relu.runtime.process_info import ProcessInfo
from dist_relu.runtime.worker import Reply, Task, WorkerConfig

_START_TIMEOUT_S = 60.0
_CLOSED = "The workers were ended by close(). Start others."


@final
class LocalBackend(Backend):
    """`workers` processes, by default one for each physical core that this process may use.

    stopped_timeout_s: how long one may be stopped by a signal before it counts as lost.
    slow_after_s: how long others wait for one before they say so.
    """

    def __init__(
        self,
        workers: int | None = None,
        threads_per_worker: int = 1,
        *,
        stopped_timeout_s: float = STOPPED_TIMEOUT_S,
        slow_after_s: float = SLOW_AFTER_S,
    ) -> None:
        workers, threads_per_worker = check_workers(workers, threads_per_worker)
        num_workers = max(num_cores() // threads_per_worker, 1) if workers is None else workers
        self._control = SharedArray(barrier.control_shape(num_workers), "int64")
        self._threads_per_worker = threads_per_worker
        self._slow_after_s = slow_after_s
        self._lost: BackendError | None = None
        self._busy: set[int] = set()
        self._is_closed = False
        self._peers: list[ProcessInfo] = []
        self._starting = threading.Lock()
        self._stop_detector = StopDetector(stopped_timeout_s)
        self._processes = LocalProcesses(num_workers, threads_per_worker)

    @property
    def name(self) -> str:
        return "local"

    @property
    def peers(self) -> Sequence[ProcessInfo]:
        """Return the workers, by rank.  Waits until they have started: they do so while the user's script goes on."""
        with self._starting:
            if self._lost:
                raise self._lost
            if not self._peers:
                try:
                    peers = self._bootstrap()
                except BaseException as error:
                    interrupted = BackendError("The workers were stopped while they started. Start others.")
                    self._lost = error if isinstance(error, BackendError) else interrupted
                    self.close()
                    raise
                self._peers = peers
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
        for rank in self._processes.ended():  # between two tasks
            raise self._loss_of(rank)
        message = cloudpickle.dumps(task)
        for rank in ranks:
            with without_interrupts():
                try:
                    self._processes.connections[rank].send_bytes(message)
                except (BrokenPipeError, ConnectionResetError):
                    raise self._loss_of(rank) from None
                self._busy.add(rank)

    def receive(self, timeout_s: float, on_event: EventHandler) -> Mapping[int, Reply]:
        _ = self.peers  # as above
        messages = {}
        for rank in self._wait_for(self._busy, min(timeout_s, CHECK_PERIOD_S)):
            with without_interrupts():
                try:
                    messages[rank] = self._processes.connections[rank].recv_bytes()
                except (EOFError, ConnectionResetError):
                    raise self._loss_of(rank) from None
                if messages[rank][:1] == REPLY:
                    self._busy.remove(rank)
        self._check_stopped()
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

    def close(self) -> None:
        self._is_closed = True
        if not self._peers and not self._lost:
            self._lost = BackendError(_CLOSED)
        self._processes.end(at_once=not self._peers)

    def _bootstrap(self) -> list[ProcessInfo]:
        """Wait for all processes, and make them workers that know one another."""
        process_infos: dict[int, ProcessInfo] = {}
        everybody = range(len(self._processes.connections))
        deadline = time.monotonic() + _START_TIMEOUT_S
        while missing := [rank for rank in everybody if rank not in process_infos]:
            if time.monotonic() > deadline:
                raise BackendError(f"Worker {missing[0]} did not start within {_START_TIMEOUT_S:.0f} seconds.")
            for rank in self._wait_for(missing, deadline - time.monotonic()):
                try:
                    process_infos[rank] = self._processes.connections[rank].recv()
                except (EOFError, ConnectionResetError):
                    raise self._failure_of(rank) from None
        in_order = [process_infos[rank] for rank in everybody]
        for rank, connection in enumerate(self._processes.connections):
            with without_interrupts():
                try:
                    connection.send(
                        WorkerConfig(
                            rank=rank,
                            peers=in_order,
                            control=self._control.handle,
                            threads=self._threads_per_worker,
                            slow_after_s=self._slow_after_s,
                        )
                    )
                except (BrokenPipeError, ConnectionResetError):
                    raise self._failure_of(rank) from None
        return in_order

    def _wait_for(self, ranks: Iterable[int], timeout_s: float) -> list[int]:
        """Wait for these ranks; returns those that have sent something.  Raises the loss of one that has ended."""
        connections = {id(self._processes.connections[rank]): rank for rank in ranks}
        sources = [self._processes.connections[rank] for rank in connections.values()]
        ready = wait([*sources, self._processes.news], timeout_s)
        ready_ranks = [connections[id(source)] for source in ready if id(source) in connections]
        # A process that a worker has forked may hold its socket, which then does not show its end.
        for rank in self._processes.ended().keys() & set(connections.values()) - set(ready_ranks):
            if not self._processes.connections[rank].poll():
                raise self._loss_of(rank) if self._peers else self._failure_of(rank)
        return ready_ranks

    def _check_stopped(self) -> None:
        try:
            self._stop_detector.check({rank: self._peers[rank].pid for rank in self._busy}, self._peers[0].host)
        except WorkerLost as loss:
            self._lost = loss
            raise

    def _failure_of(self, rank: int) -> BackendError:
        """Return the error of a process that has hung up before it was a worker."""
        code = self._processes.exit_code(rank)
        how = "hung up" if code is None else f"ended with exit code {code}"
        return BackendError(f"Worker {rank} {how} while it started.")

    def _loss_of(self, rank: int) -> BackendError:
        if self._is_closed:  # in another thread
            return BackendError(_CLOSED)
        peer, code = self._peers[rank], self._processes.exit_code(rank)
        how = "has hung up" if code is None else how_it_ended(code)
        self._lost = WorkerLost(f"Worker {rank} (host {peer.host}, pid {peer.pid}) {how}.")
        return self._lost

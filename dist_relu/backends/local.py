"""Workers as processes of this machine.

They are started as plain programs, not forked and not through `multiprocessing`, so that a user's script needs no
`if __name__ == "__main__"`. Each has a socket to the coordinator; when one end's process dies, the other end knows.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any, final

import cloudpickle

from dist_relu.backends.base import GRACE_AFTER_ERROR_S, Backend, EventHandler, values
from dist_relu.collectives import barrier
from dist_relu.collectives.memory import SharedArray
from dist_relu.errors import BackendError, WorkerLost
from dist_relu.machine import how_it_ended, num_cores
from dist_relu.worker import Call, Hello, Raised, Reply, Setup, Worker

_START_TIMEOUT_S = 60.0
_CLOSE_TIMEOUT_S = 2.0
_EVENT, _REPLY = b"E", b"R"
"""The first byte of a worker's message; a pickle follows."""


@final
class LocalBackend(Backend):
    """`workers` processes, by default one for each physical core that this process may use."""

    def __init__(self, workers: int | None, threads_per_worker: int) -> None:
        num_workers = max(num_cores() // threads_per_worker, 1) if workers is None else workers
        self._control = SharedArray(barrier.control_shape(num_workers), "int64")
        self._lost: BackendError | None = None
        self._connections: list[Connection[Any, Any]] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._owing: set[int] = set()  # ranks that have not answered yet
        self._threads_per_worker = threads_per_worker
        self._hellos: list[Hello] = []
        try:
            for _ in range(num_workers):
                self._start_process(threads_per_worker)
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        return "local"

    @property
    def peers(self) -> Sequence[Hello]:
        """The workers, by rank.  Waits until they have started: they do so while the user's script goes on."""
        if self._lost:
            raise self._lost
        if not self._hellos:
            try:
                hellos = [self._hello(rank) for rank in range(len(self._connections))]
                for rank, connection in enumerate(self._connections):
                    connection.send(Setup(rank, hellos, self._control.handle, self._threads_per_worker))
            except BaseException as error:
                interrupted = BackendError("The workers were stopped while they started. Start others.")
                self._lost = error if isinstance(error, BackendError) else interrupted
                self.close()
                raise
            self._hellos = hellos
        return self._hellos

    @property
    def home(self) -> int:
        return 0

    def call(self, call: Call, ranks: Sequence[int], on_event: EventHandler) -> list[Any]:
        _ = self.peers  # all have started, and none was lost
        try:
            while self._owing:  # ranks that are still busy with a call that was given up
                self._receive(_ignore, None)
            message = cloudpickle.dumps(call)
            for rank in ranks:
                self._send(rank, message)
            replies: dict[int, Reply] = {}
            deadline = None
            while self._owing and (deadline is None or time.monotonic() < deadline):
                replies |= self._receive(on_event, deadline)
                if deadline is None and any(isinstance(reply, Raised) for reply in replies.values()):
                    deadline = time.monotonic() + GRACE_AFTER_ERROR_S
        except BaseException:
            barrier.abort(self._control.array, call.number)
            raise
        return values([replies[rank] for rank in sorted(replies)])

    def close(self) -> None:
        for connection in self._connections:
            connection.close()  # a worker whose connection closes, ends
        if not self._hellos:
            for process in self._processes:
                process.kill()  # it still starts, and looks at nothing
        deadline = time.monotonic() + _CLOSE_TIMEOUT_S
        for process in self._processes:
            try:
                process.wait(max(deadline - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._connections.clear()
        self._processes.clear()

    def _start_process(self, threads: int) -> None:
        ours, theirs = socket.socketpair()
        with theirs, _without_interrupts():  # which the new process inherits
            self._connections.append(Connection(ours.detach()))
            paths = [path or os.getcwd() for path in sys.path]
            variables = "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"
            environment = {**os.environ, **dict.fromkeys(variables, str(threads)), "PYTHONPATH": os.pathsep.join(paths)}
            program = f"from dist_relu.backends.local import serve; serve({theirs.fileno()})"
            self._processes.append(
                subprocess.Popen(
                    [sys.executable, "-P", "-c", program],
                    env=environment,
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                )
            )

    def _hello(self, rank: int) -> Hello:
        if not self._connections[rank].poll(_START_TIMEOUT_S):
            raise BackendError(f"Worker {rank} did not start within {_START_TIMEOUT_S:.0f} seconds.")
        try:
            hello = self._connections[rank].recv()
        except (EOFError, ConnectionResetError):
            code = self._processes[rank].wait()
            raise BackendError(f"Worker {rank} ended with exit code {code} while it started.") from None
        assert isinstance(hello, Hello)
        return hello

    def _send(self, rank: int, message: bytes) -> None:
        with _without_interrupts():
            try:
                self._connections[rank].send_bytes(message)
            except (BrokenPipeError, ConnectionResetError):
                raise self._loss_of(rank) from None
            self._owing.add(rank)

    def _receive(self, on_event: EventHandler, deadline: float | None) -> dict[int, Reply]:
        """Wait for messages, until `deadline` if there is one; pass on the events and return the replies, by rank."""
        ranks = {id(self._connections[rank]): rank for rank in self._owing}
        timeout_s = None if deadline is None else max(deadline - time.monotonic(), 0)
        messages = {}
        for ready in wait([self._connections[rank] for rank in self._owing], timeout_s):
            rank = ranks[id(ready)]
            with _without_interrupts():
                try:
                    messages[rank] = self._connections[rank].recv_bytes()
                except (EOFError, ConnectionResetError):
                    raise self._loss_of(rank) from None
                if messages[rank][:1] == _REPLY:
                    self._owing.remove(rank)
        replies = {}
        for rank, message in messages.items():
            content = cloudpickle.loads(memoryview(message)[1:])
            if message[:1] == _REPLY:
                replies[rank] = content
            else:
                on_event(content)
        return replies

    def _loss_of(self, rank: int) -> WorkerLost:
        peer, code = self._hellos[rank], self._processes[rank].wait()
        loss = WorkerLost(f"Worker {rank} (host {peer.host}, pid {peer.pid}) {how_it_ended(code)}.")
        self._lost = loss
        return loss


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Hold back Ctrl-C meanwhile: half a message would put the connection out of step."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve(descriptor: int) -> None:
    """What a worker process runs: answer calls from the coordinator until its end of the socket closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the coordinator
    threading.Thread(target=_end_with_coordinator, args=[descriptor], daemon=True).start()
    connection = Connection(descriptor)
    try:
        connection.send(Hello.here())
        worker = Worker(connection.recv(), lambda event: connection.send_bytes(_EVENT + cloudpickle.dumps(event)))
        while True:
            connection.send_bytes(_REPLY + worker.run(cloudpickle.loads(connection.recv_bytes())))
    except (EOFError, ConnectionResetError, BrokenPipeError):
        os._exit(0)


def _end_with_coordinator(descriptor: int) -> None:
    """End this process as soon as the coordinator is gone or hangs up, whatever the main thread does."""
    hang_up = select.poll()
    hang_up.register(descriptor, select.POLLRDHUP)
    hang_up.poll()
    os._exit(0)


def _ignore(event: object) -> None:
    pass

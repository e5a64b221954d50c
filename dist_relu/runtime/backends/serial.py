"""One worker, in this process."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import final

from dist_relu.comm import barrier
from dist_relu.comm.shared_memory import Handle, SharedArray
from dist_relu.errors import UnsuitableBackend
from dist_relu.runtime.backends.base import Backend, EventHandler, check_workers
from dist_relu.runtime.backends.in_process import InProcessWorker
from dist_relu.runtime.process_info import ProcessInfo
from dist_relu.runtime.worker import Reply, Task, WorkerConfig


@final
class SerialBackend(Backend):
    """A world of size one, for debugging and for comparison."""

    def __init__(self, workers: int | None = None, threads_per_worker: int = 1) -> None:
        workers, threads = check_workers(workers, threads_per_worker)
        if workers not in (None, 1):
            raise UnsuitableBackend(f'backend="serial" has one worker, not {workers}. Use backend="local" for more.')
        self._peers = [ProcessInfo.here()]
        self._control = SharedArray(barrier.control_shape(1), "int64")
        self._worker = InProcessWorker(
            WorkerConfig(rank=0, peers=self._peers, control=self._control.handle, threads=threads)
        )

    @property
    def num_workers(self) -> int:
        return 1

    @property
    def name(self) -> str:
        return "serial"

    @property
    def peers(self) -> Sequence[ProcessInfo]:
        return self._peers

    @property
    def coordinator_node(self) -> int:
        return 0

    @property
    def control(self) -> Handle:
        return self._control.handle

    @property
    def busy(self) -> Collection[int]:
        return [0] if self._worker.is_busy else []

    def send(self, task: Task, ranks: Sequence[int]) -> None:
        self._worker.send(task)

    def receive(self, timeout_s: float, on_event: EventHandler) -> Mapping[int, Reply]:
        return {0: self._worker.receive(on_event)}

    def abort(self, number: int) -> None:
        barrier.abort(self._control.array, number)
        self._worker.abort()

    def close(self) -> None:
        self._worker.close()

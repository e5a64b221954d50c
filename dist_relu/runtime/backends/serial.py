"""One worker, in this process."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import final

from dist_relu.errors import UnsuitableBackend
from dist_relu.runtime.backends.base import EventHandler, check_workers
from dist_relu.runtime.backends.in_process import InProcessBackend, InProcessWorker
from dist_relu.runtime.process_info import ProcessInfo
from dist_relu.runtime.worker import Reply, Task, WorkerConfig


@final
class SerialBackend(InProcessBackend):
    """A world of size one, for debugging and for comparison."""

    def __init__(self, workers: int | None = None, threads_per_worker: int = 1) -> None:
        workers, threads = check_workers(workers, threads_per_worker)
        if workers not in (None, 1):
            raise UnsuitableBackend(f'backend="serial" has one worker, not {workers}. Use backend="local" for more.')
        super().__init__([ProcessInfo.here()])
        self._worker = InProcessWorker(
            WorkerConfig(rank=0, peers=self._peers, control=self._control.handle, threads=threads)
        )

    @property
    def name(self) -> str:
        return "serial"

    @property
    def busy(self) -> Collection[int]:
        return [0] if self._worker.is_busy else []

    def send(self, task: Task, ranks: Sequence[int]) -> None:
        self._worker.send(task)

    def receive(self, timeout_s: float, on_event: EventHandler) -> Mapping[int, Reply]:
        return {0: self._worker.receive(on_event)}

    def close(self) -> None:
        self._worker.close()

"""One worker, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import cloudpickle

from dist_relu.comm.barrier import control_shape
from dist_relu.comm.shared_memory import SharedArray
from dist_relu.errors import UnsuitableBackend
from dist_relu.runtime.backends.base import Backend, EventHandler, EventsHere, values
from dist_relu.runtime.process_info import ProcessInfo
from dist_relu.runtime.worker import Task, Worker, WorkerConfig


@final
class SerialBackend(Backend):
    """A world of size one, for debugging and for comparison."""

    def __init__(self, workers: int | None, threads_per_worker: int) -> None:
        if workers not in (None, 1):
            raise UnsuitableBackend(f'backend="serial" has one worker, not {workers}. Use backend="local" for more.')
        self._events = EventsHere()
        self._peers = [ProcessInfo.here()]
        control = SharedArray(control_shape(1), "int64")
        config = WorkerConfig(0, self._peers, control.handle, threads_per_worker)
        self._worker = Worker(config, self._events.report)

    @property
    def name(self) -> str:
        return "serial"

    @property
    def peers(self) -> Sequence[ProcessInfo]:
        return self._peers

    @property
    def coordinator_node(self) -> int:
        return 0

    def call(self, call: Task, ranks: Sequence[int], on_event: EventHandler) -> list[Any]:
        with self._events.to(on_event):
            reply = self._worker.run(call)
        return values([cloudpickle.loads(reply)])

    def close(self) -> None:
        self._worker.close()

"""A worker in the user's own process and thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import cloudpickle

from dist_relu.comm import barrier
from dist_relu.comm.channel import Channel
from dist_relu.comm.shared_memory import Handle, SharedArray
from dist_relu.runtime.backends.base import Backend, EventHandler, ignore_event
from dist_relu.runtime.process_info import ProcessInfo, nodes_of
from dist_relu.runtime.worker import Reply, Task, Worker, WorkerConfig


@final
class InProcessWorker:
    """A worker that computes while the coordinator, whose thread it uses, waits for its reply."""

    def __init__(self, config: WorkerConfig, channel: Channel | None = None) -> None:
        self._worker = Worker(config, self._report, channel)
        self._task: Task | None = None
        self._on_event: EventHandler = ignore_event
        self._error: BaseException | None = None

    @property
    def is_busy(self) -> bool:
        """Tell whether it has a task to begin with."""
        return self._task is not None

    def send(self, task: Task) -> None:
        """Take a task, for `receive`."""
        self._task = task

    def receive(self, on_event: EventHandler) -> Reply:
        """Run the task; returns the reply.  Raises what `on_event` raised."""
        task, self._task = self._task, None
        assert task is not None
        self._on_event, self._error = on_event, None
        reply = self._worker.run(task)
        if self._error is not None:
            raise self._error
        content: Reply = cloudpickle.loads(reply)
        return content

    def abort(self) -> None:
        """Forget a task that has not begun."""
        self._task = None

    def close(self) -> None:
        """Let go of the other workers.  May be called twice."""
        self._worker.close()

    def _report(self, event: Any) -> None:
        """Hand an event to the coordinator; an exception of its handler gives up the task, and `receive` raises it."""
        try:
            self._on_event(event)
        except BaseException as error:
            self._error = error
            raise barrier.TaskAborted from None


class InProcessBackend(Backend):
    """A backend whose first worker is in the user's own process, which therefore is on the first node."""

    _worker: InProcessWorker

    def __init__(self, peers: Sequence[ProcessInfo]) -> None:
        """Make the control memory of the first node; `_worker` is still to be made."""
        self._peers = peers
        self._control = SharedArray(barrier.control_shape(len(nodes_of(peers)[0])), "int64")

    @property
    def num_workers(self) -> int:
        return len(self._peers)

    @property
    def peers(self) -> Sequence[ProcessInfo]:
        return self._peers

    @property
    def coordinator_node(self) -> int:
        return 0

    @property
    def control(self) -> Handle:
        return self._control.handle

    def abort(self, number: int) -> None:
        barrier.abort(self._control.array, number)
        self._worker.abort()

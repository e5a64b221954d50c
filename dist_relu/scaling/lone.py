"""One worker of a job of many nodes, in this process, without the others.

It does all that the worker does: its shards, its node's sums, the messages that it sends, its part of the update. Only
nobody is there: what it sends goes nowhere, and what it waits for has come already, as zeros. So what a node of a large
job has to do is measured on one core, by the code that does it there, and when each message leaves.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from time import monotonic_ns
from typing import final

from dist_relu.comm.channel import Callback, Channel
from dist_relu.comm.whereabouts import PASS, SUM, Whereabouts
from dist_relu.core.arrays import Array
from dist_relu.runtime.backends.base import EventHandler
from dist_relu.runtime.backends.in_process import InProcessBackend, InProcessWorker
from dist_relu.runtime.process_info import ProcessInfo
from dist_relu.runtime.worker import Reply, Task, WorkerConfig


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A message that left.  since_s: the beginning of the step.  is_after_pass: whether all shards were through."""

    since_s: float
    size_bytes: int
    is_after_pass: bool


@final
class Nowhere(Channel):
    """A channel to nobody.  sent: all messages.  place: see `Whereabouts`, of the worker."""

    def __init__(self, place: Array) -> None:
        self.sent: list[Sent] = []
        self._place = place
        self._zeroed: set[int] = set()

    def begin(self, task: int) -> None:
        """Have no messages of any task."""

    def send(self, array: Array, rank: int, tag: int, on_done: Callback) -> None:
        _, phase, began_ns = map(int, self._place)
        if phase in (PASS, SUM):  # otherwise it is no message of a step
            since_s = (monotonic_ns() - began_ns) / 1e9
            self.sent.append(Sent(since_s=since_s, size_bytes=array.nbytes, is_after_pass=phase == SUM))
        on_done()

    def receive(self, array: Array, rank: int, tag: int, on_done: Callback) -> None:
        if array.ctypes.data not in self._zeroed:
            self._zeroed.add(array.ctypes.data)
            array[...] = 0
        on_done()

    @property
    def is_busy(self) -> bool:
        return False

    def progress(self) -> bool:
        return False


@final
class LoneBackend(InProcessBackend):
    """The first worker of so many nodes with one worker each; the others reply what it does.

    It has more to do than the others, or as much: whatever can't be shared evenly, the first ones have more of.
    channel: where its messages go.
    """

    def __init__(self, nodes: int) -> None:
        here = ProcessInfo.here()
        super().__init__([replace(here, node=f"{here.node} {number}") for number in range(nodes)])
        self.channel = Nowhere(Whereabouts(self._control.array, 0).place)
        self._worker = InProcessWorker(
            WorkerConfig(rank=0, peers=self._peers, control=self._control.handle, threads=1), self.channel
        )
        self._ranks: Sequence[int] = ()

    @property
    def name(self) -> str:
        return "lone"

    @property
    def busy(self) -> Collection[int]:
        return self._ranks if self._worker.is_busy else []

    def send(self, task: Task, ranks: Sequence[int]) -> None:
        self._ranks = ranks
        self._worker.send(task)

    def receive(self, timeout_s: float, on_event: EventHandler) -> Mapping[int, Reply]:
        return dict.fromkeys(self._ranks, self._worker.receive(on_event))

    def close(self) -> None:
        self._worker.close()

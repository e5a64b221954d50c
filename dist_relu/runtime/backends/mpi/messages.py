"""What rank 0 of an MPI job and the other ranks say to one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dist_relu.comm.backoff import Backoff
from dist_relu.runtime.backends.heartbeat import HeartbeatEndpoint
from dist_relu.runtime.backends.mpi.membership import LONGEST_PAUSE_S
from dist_relu.runtime.process_info import ProcessInfo
from dist_relu.runtime.worker import Task, WorkerConfig

TO_WORKER, TO_COORDINATOR, GROUP_TAG = 1, 2, 3
"""Tags of our messages, which have a communicator of their own."""


@dataclass(frozen=True, kw_only=True)
class RankInfo:
    """What a rank says first.  has_threads: several of its threads may call MPI at once."""

    process: ProcessInfo
    has_threads: bool

    @classmethod
    def here(cls) -> RankInfo:
        from mpi4py import MPI

        return cls(process=ProcessInfo.in_cluster(), has_threads=MPI.Query_thread() == MPI.THREAD_MULTIPLE)


@dataclass(frozen=True, kw_only=True)
class WorkerGroup:
    """Says which ranks become workers, in their order, and whether they need a channel to one another.

    tasks_before: how many tasks there were in this job, by whomever.
    """

    ranks: tuple[int, ...]
    has_channel: bool
    tasks_before: int


@dataclass(frozen=True, kw_only=True)
class NodeProcesses:
    """The processes of a node, and what each is called."""

    pids: Sequence[int]
    names: Sequence[str]


Message = NodeProcesses | WorkerGroup | WorkerConfig | HeartbeatEndpoint | Task
"""What rank 0 sends to another rank, which answers; None, without an answer, lets it end."""


def receive(comm: Any, source: int, tag: int) -> bytes:
    """Receive a message from `source`, polled for with growing pauses."""
    backoff = Backoff(longest_s=LONGEST_PAUSE_S)
    while (message := comm.improbe(source=source, tag=tag)) is None:
        backoff.pause(retry=True)
    data: bytes = message.recv()
    return data

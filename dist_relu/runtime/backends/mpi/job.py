"""An MPI job: its ranks, and how rank 0 and the others talk.

All ranks run the user's script. Rank 0 goes on with it; the other ranks stay where they first ask for a backend and
serve until the script on rank 0 has ended. Messages are polled for, with pauses, because a rank that waits inside MPI
burns a core that another rank may need.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import Any, NoReturn, final

import cloudpickle

from dist_relu.comm.backoff import Backoff
from dist_relu.errors import BackendError, WorkerLost
from dist_relu.runtime.backends.in_process import InProcessWorker
from dist_relu.runtime.backends.interrupts import without_interrupts
from dist_relu.runtime.backends.mpi import rank_guard
from dist_relu.runtime.backends.mpi.channel import Channels, MpiChannel
from dist_relu.runtime.backends.mpi.membership import (
    LONGEST_PAUSE_S,
    at_end,
    check_not_forked,
    join_ranks,
    library_name,
)
from dist_relu.runtime.backends.mpi.messages import (
    TO_COORDINATOR,
    TO_WORKER,
    Message,
    NodeProcesses,
    RankInfo,
    WorkerGroup,
    receive,
)
from dist_relu.runtime.backends.mpi.node_reaper import kill_job, start_reaper
from dist_relu.runtime.backends.mpi.serving_rank import ServingRank
from dist_relu.runtime.process_info import by_node, nodes_of

_CLOSE_TIMEOUT_S = 2.0


@final
class Job:
    """Speaks with the other ranks of this MPI job, on rank 0.

    busy: ranks that have not answered yet.  num_tasks: how many tasks there were.  worker: the one of this process, if
    there is any.  is_lost: a node does not answer any more.
    """

    def __init__(self, comm: Any) -> None:
        self.comm = comm
        self._pid = os.getpid()
        self.size: int = comm.Get_size()
        self.busy: set[int] = set()
        self.num_tasks = 0
        self.worker: InProcessWorker | None = None
        self.is_lost = False
        self._has_ended = False
        self._is_out_of_step = False
        self._channels = Channels(comm)
        others = [cloudpickle.loads(receive(comm, rank, TO_COORDINATOR)) for rank in range(1, self.size)]
        self._rank_infos: list[RankInfo] = [RankInfo.here(), *others]
        self.process_infos = [info.process for info in self._rank_infos]
        order = by_node(self.process_infos)
        in_order = [self.process_infos[rank] for rank in order]
        names = [f"Worker {i} (host {info.host}, pid {info.pid})" for i, info in enumerate(in_order)]
        nodes = nodes_of(in_order)
        processes = [
            NodeProcesses(pids=[in_order[i].pid for i in node], names=[names[i] for i in node]) for node in nodes
        ]
        for node, processes_there in zip(nodes[1:], processes[1:], strict=True):
            self.send([order[node.start]], processes_there)
        self._reaper = start_reaper(processes[0])
        self.settle()
        rank_guard.tell("started")

    def end_with_script(self) -> None:
        """Let the other ranks end when the script ends, or when it calls MPI.Finalize(), which would wait for them."""
        from mpi4py import MPI

        at_end(self.release)
        MPI.COMM_SELF.Set_attr(MPI.Comm.Create_keyval(delete_fn=lambda *_: self.release()), None)

    def check(self) -> None:
        """Raise BackendError or WorkerLost when the other ranks can't be told anything any more."""
        check_not_forked(self._pid)
        if self.is_lost:
            raise WorkerLost("A node of this MPI job was lost, and with it the job. Start it again.")
        if self._has_ended:
            raise BackendError("This MPI job has ended: the script called MPI.Finalize(), and the other ranks ended.")
        if self._is_out_of_step:
            raise BackendError(
                "An earlier call was interrupted while rank 0 spoke with another rank of this MPI job, so that answers "
                "do not fit their questions any more. Start the job again."
            )

    def send(self, ranks: Sequence[int], message: Message) -> None:
        """Send ranks something to answer; they must not be busy."""
        data = cloudpickle.dumps(message)
        with self._whole_messages():
            for rank in ranks:
                assert rank not in self.busy
                self.busy.add(rank)
                self.comm.send(data, dest=rank, tag=TO_WORKER)

    def _replies(self) -> dict[int, Any]:
        """Take in the answers that have arrived, by rank; does not wait."""
        arrived = {}
        with self._whole_messages():
            for rank in sorted(self.busy):
                message = self.comm.improbe(source=rank, tag=TO_COORDINATOR)
                if message is not None:
                    arrived[rank] = cloudpickle.loads(message.recv())
                    self.busy.remove(rank)
        return arrived

    @contextmanager
    def _whole_messages(self) -> Iterator[None]:
        """Hold back Ctrl-C, and note when a message is half sent or received for another reason."""
        with without_interrupts():
            try:
                yield
            except BaseException:
                self._is_out_of_step = True
                raise

    def wait_for_replies(self, timeout_s: float) -> dict[int, Any]:
        """Wait until some ranks have answered, or for `timeout_s`, or until a node is lost; returns the answers."""
        deadline = time.monotonic() + timeout_s
        backoff = Backoff(longest_s=LONGEST_PAUSE_S)
        while not (arrived := self._replies()) and time.monotonic() < deadline and not self.is_lost:
            backoff.pause(retry=True)
        return arrived

    def settle(self, timeout_s: float = inf) -> dict[int, Any]:
        """Wait until no rank is busy, or for `timeout_s`; returns what they answered, by rank."""
        deadline = time.monotonic() + timeout_s
        replies: dict[int, Any] = {}
        while self.busy and (remaining_s := deadline - time.monotonic()) > 0 and not self.is_lost:
            replies |= self.wait_for_replies(remaining_s)
        return replies

    def channel(self, group: WorkerGroup) -> MpiChannel | None:
        """Return rank 0's channel to the others of a group.  Collective over them."""
        return self._channels.channel(group)

    def kill(self) -> NoReturn:
        """End all ranks, at once."""
        kill_job(self._reaper)

    def check_threads(self) -> None:
        """Raise BackendError when some rank may call MPI in one thread only, which channels between nodes can't do."""
        ranks = [str(rank) for rank, info in enumerate(self._rank_infos) if not info.has_threads]
        if ranks:
            raise BackendError(
                "Several nodes need an MPI that several threads may call at once (MPI_THREAD_MULTIPLE). MPI was "
                f"started without, or does not have it, on {'rank' if len(ranks) == 1 else 'ranks'} {', '.join(ranks)} "
                f'({library_name()}). If the script sets mpi4py.rc.thread_level, set it to "multiple".'
            )

    def release(self) -> None:
        """Let the other ranks end, and with them the job.  May be called twice."""
        if self._has_ended:
            return
        self._has_ended = True
        try:
            self.settle(_CLOSE_TIMEOUT_S)
            if self.busy or self.is_lost or self._is_out_of_step:
                # They would hold up the end of the job for as long as they compute.
                sys.stdout.flush()
                sys.stderr.flush()
                self.kill()
            self._reaper.communicate(b".")
            if self.worker:
                self.worker.close()
            for rank in range(1, self.size):
                self.comm.send(cloudpickle.dumps(None), dest=rank, tag=TO_WORKER)
        except BaseException:  # a second Ctrl-C: nobody else would tell the others
            self.kill()


_job: Job | None = None
_joining = threading.Lock()


def join() -> Job:
    """Take part in this MPI job: returns on rank 0 only; the other ranks serve it, and end with it."""
    global _job  # noqa: PLW0603 - a process is in one MPI job
    with _joining:
        if _job is None:
            comm = join_ranks()
            if comm.Get_rank():
                ServingRank(comm).serve()
            _job = Job(comm)
            _job.end_with_script()
    return _job

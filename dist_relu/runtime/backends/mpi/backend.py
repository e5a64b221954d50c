"""Workers as the ranks of an MPI job, on one node or several.

Rank 0 goes on with the user's script and is worker 0 besides; see `mpi_job` for the others. Workers are numbered node
by node, whatever the order of the ranks, so that a node has shards that follow one another.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import cloudpickle

from dist_relu.comm.backoff import Backoff
from dist_relu.comm.barrier import ALL_CALLS, abort, control_shape
from dist_relu.comm.shared_memory import SharedArray
from dist_relu.errors import UnsuitableBackend, WorkerLost
from dist_relu.runtime.backends.base import GRACE_AFTER_ERROR_S, Backend, EventHandler, EventsHere, values
from dist_relu.runtime.backends.heartbeat import Reception, Watch, called
from dist_relu.runtime.backends.mpi.job import Group, join
from dist_relu.runtime.backends.mpi.membership import LONGEST_PAUSE_S
from dist_relu.runtime.process_info import ProcessInfo, by_node, nodes_of
from dist_relu.runtime.worker import Failed, Reply, Task, Worker, WorkerConfig

_TIME_TO_TELL_S = 3.0


@final
class MpiBackend(Backend):
    """The ranks of this MPI job; a script may use only the first `workers` of them.

    Rank 0 computes in the user's own thread: an error of another rank is seen when rank 0 next waits for it.
    """

    def __init__(self, workers: int | None, threads_per_worker: int) -> None:
        self._job = job = join()
        job.check()
        num_workers = job.size if workers is None else workers
        if num_workers > job.size:
            raise UnsuitableBackend(
                f"workers={num_workers}, but MPI started {job.size} ranks. "
                f"Start the job with mpirun -n {num_workers}, or pass workers <= {job.size}."
            )
        self._ranks = by_node(job.infos[:num_workers])  # of the workers, in the job
        self._peers = peers = [job.infos[rank] for rank in self._ranks]
        self._nodes = nodes = nodes_of(peers)
        self._events = EventsHere()
        self._control = SharedArray(control_shape(len(nodes[0])), "int64")
        self._lost: WorkerLost | None = None
        self._has_told = threading.Event()
        if len(nodes) > 1:
            job.check_threads()
        job.settle()
        group = Group(tuple(self._ranks), len(nodes) > 1, job.num_calls)
        job.tell(self._ranks[1:], group)
        channel = job.channel(group)
        job.settle()
        firsts = [ranks.start for ranks in nodes[1:]]
        controls = [self._control.handle, *self._set_up(firsts, [None] * len(firsts), threads_per_worker)]
        others = [(rank, controls[i]) for i, ranks in enumerate(nodes) for rank in ranks[1:]]
        self._set_up([rank for rank, _ in others], [control for _, control in others], threads_per_worker)
        self._watch = self._watch_over(firsts) if firsts else None
        self._worker = job.worker = Worker(
            WorkerConfig(0, peers, self._control.handle, threads_per_worker), self._events.report, channel
        )

    @property
    def name(self) -> str:
        return "mpi"

    @property
    def peers(self) -> Sequence[ProcessInfo]:
        return self._peers

    @property
    def coordinator_node(self) -> int:
        return 0

    def call(self, call: Task, ranks: Sequence[int], on_event: EventHandler) -> list[Any]:
        self._check_lost()
        self._job.check()
        self._job.settle()
        self._job.num_calls += 1
        try:
            self._job.tell([self._ranks[rank] for rank in ranks if rank], call)
            replies: dict[int, Reply] = {}
            if 0 in ranks:
                with self._events.to(on_event):
                    replies[0] = cloudpickle.loads(self._worker.run(call))
            deadline = None
            backoff = Backoff(longest_s=LONGEST_PAUSE_S)
            while self._job.owing and (deadline is None or time.monotonic() < deadline):
                self._check_lost()
                arrived = self._job.replies()
                replies |= arrived
                if deadline is None and any(isinstance(reply, Failed) for reply in replies.values()):
                    deadline = time.monotonic() + GRACE_AFTER_ERROR_S
                backoff.pause(retry=not arrived)
        except BaseException:
            abort(self._control.array, call.number)
            raise
        self._check_lost()
        return values([replies[rank] for rank in self._ranks if rank in replies])

    def close(self) -> None:
        self._worker.close()
        if self._watch:
            self._watch.close()

    def _set_up(self, workers: Sequence[int], controls: Sequence[Any], threads: int) -> list[Any]:
        """Make workers of ranks; returns the control memory that each of them uses."""
        for worker, control in zip(workers, controls, strict=True):
            self._job.tell([self._ranks[worker]], WorkerConfig(worker, self._peers, control, threads))
        replies = self._job.settle()
        return [replies[self._ranks[worker]] for worker in workers]

    def _watch_over(self, firsts: Sequence[int]) -> Watch:
        """Keep in touch with the other nodes through their first workers."""
        reception = Reception([called(self._peers, ranks) for ranks in self._nodes])
        for node, worker in enumerate(firsts, start=1):
            self._job.tell([self._ranks[worker]], reception.ticket(node))
        links = reception.links(range(1, len(self._nodes)))
        self._job.settle()
        return Watch(links, self._control.array, self._on_loss)

    def _on_loss(self, what: str) -> None:
        """Called by the watch: let the user's thread raise an error, or end the job if it does nothing of the kind."""
        self._lost = WorkerLost(f"{what}. The job ends.")
        self._job.is_lost = True
        abort(self._control.array, ALL_CALLS)

        def end() -> None:
            if not self._has_told.wait(_TIME_TO_TELL_S):
                os.write(2, f"WorkerLost: {self._lost}\n".encode())
                self._job.kill()

        threading.Thread(target=end, daemon=True).start()

    def _check_lost(self) -> None:
        if self._lost is not None:
            self._has_told.set()
            raise self._lost


def mpirun_path() -> str:
    """The mpirun that belongs to this Python's environment, or else the first on PATH.  Raises `BackendError`."""
    beside = Path(sys.executable).parent / "mpirun"
    found = str(beside) if beside.exists() else shutil.which("mpirun")
    if found is None:
        raise UnsuitableBackend("There is no mpirun. Install one: pip install 'dist_relu[mpi]'.")
    return found

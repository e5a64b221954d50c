"""Workers as the ranks of an MPI job, on one node or several.

Rank 0 goes on with the user's script and is worker 0 besides; see `serving_rank` for the others. Workers are numbered
node by node, whatever the order of the ranks, so that a node has shards that follow one another.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, final

from dist_relu.comm import barrier
from dist_relu.comm.shared_memory import Handle
from dist_relu.errors import UnsuitableBackend, WorkerLost
from dist_relu.runtime.backends.base import EventHandler, check_workers
from dist_relu.runtime.backends.heartbeat import Heartbeat, HeartbeatListener, describe_node
from dist_relu.runtime.backends.in_process import InProcessBackend, InProcessWorker
from dist_relu.runtime.backends.mpi import rank_guard
from dist_relu.runtime.backends.mpi.job import join
from dist_relu.runtime.backends.mpi.messages import WorkerGroup
from dist_relu.runtime.process_info import by_node, nodes_of
from dist_relu.runtime.worker import Reply, Task, WorkerConfig

_TIME_TO_TELL_S = 3.0


@final
class MpiBackend(InProcessBackend):
    """The ranks of this MPI job; a script may use only the first `workers` of them.

    Rank 0 computes in the user's own thread: an error of another rank is seen when rank 0 next waits for it.
    """

    def __init__(self, workers: int | None = None, threads_per_worker: int = 1) -> None:
        workers, threads_per_worker = check_workers(workers, threads_per_worker)
        self._job = job = join()
        job.check()
        num_workers = job.size if workers is None else workers
        if num_workers > job.size:
            raise UnsuitableBackend(
                f"workers={num_workers}, but MPI started {job.size} ranks. "
                f"Start the job with mpirun -n {num_workers}, or pass workers <= {job.size}."
            )
        self._job_ranks = by_node(job.process_infos[:num_workers])  # of the workers, in the job
        super().__init__([job.process_infos[rank] for rank in self._job_ranks])
        self._nodes = nodes = nodes_of(self._peers)
        self._threads_per_worker = threads_per_worker
        self._lost: WorkerLost | None = None
        self._has_told = threading.Event()
        if len(nodes) > 1:
            job.check_threads()
        job.settle()
        group = WorkerGroup(ranks=tuple(self._job_ranks), has_channel=len(nodes) > 1, tasks_before=job.num_tasks)
        job.send(self._job_ranks[1:], group)
        channel = job.channel(group)
        job.settle()
        firsts = [ranks.start for ranks in nodes[1:]]
        controls = [self._control.handle, *self._set_up(firsts, [None] * len(firsts))]
        others = [(rank, controls[i]) for i, ranks in enumerate(nodes) for rank in ranks[1:]]
        self._set_up([rank for rank, _ in others], [control for _, control in others])
        self._heartbeat = self._start_heartbeat(firsts) if firsts else None
        self._worker = job.worker = InProcessWorker(self._config(0, self._control.handle), channel)

    @property
    def name(self) -> str:
        return "mpi"

    @property
    def busy(self) -> Collection[int]:
        others = [rank for rank, job_rank in enumerate(self._job_ranks) if job_rank in self._job.busy]
        return [0, *others] if self._worker.is_busy else others

    def send(self, task: Task, ranks: Sequence[int]) -> None:
        self._check()
        self._job.num_tasks += 1
        self._job.send([self._job_ranks[rank] for rank in ranks if rank], task)
        if 0 in ranks:
            self._worker.send(task)

    def receive(self, timeout_s: float, on_event: EventHandler) -> Mapping[int, Reply]:
        self._check()
        if self._worker.is_busy:
            replies = {0: self._worker.receive(on_event)}
        else:
            arrived = self._job.wait_for_replies(timeout_s)
            replies = {rank: arrived[job_rank] for rank, job_rank in enumerate(self._job_ranks) if job_rank in arrived}
        self._check_lost()
        return replies

    def close(self) -> None:
        self._worker.close()
        if self._heartbeat:
            self._heartbeat.close()

    def _set_up(self, workers: Sequence[int], controls: Sequence[Any]) -> list[Any]:
        """Make workers of ranks; returns the control memory that each of them uses."""
        for worker, control in zip(workers, controls, strict=True):
            self._job.send([self._job_ranks[worker]], self._config(worker, control))
        replies = self._job.settle()
        return [replies[self._job_ranks[worker]] for worker in workers]

    def _config(self, worker: int, control: Handle | None) -> WorkerConfig:
        return WorkerConfig(rank=worker, peers=self._peers, control=control, threads=self._threads_per_worker)

    def _start_heartbeat(self, firsts: Sequence[int]) -> Heartbeat:
        """Keep in touch with the other nodes through their first workers."""
        listener = HeartbeatListener([describe_node(self._peers, ranks) for ranks in self._nodes])
        for node, worker in enumerate(firsts, start=1):
            self._job.send([self._job_ranks[worker]], listener.endpoint(node))
        links = listener.accept(range(1, len(self._nodes)))
        self._job.settle()
        return Heartbeat(links, self._control.array, self._on_loss)

    def _on_loss(self, what: str) -> None:
        """Let the user's thread raise an error, or else end the job.  Called by the heartbeat."""
        rank_guard.tell(f"lost {what}")
        self._lost = WorkerLost(f"{what}. The job ends.")
        self._job.is_lost = True
        barrier.abort(self._control.array, barrier.ALL_TASKS)

        def end() -> None:
            if not self._has_told.wait(_TIME_TO_TELL_S):
                os.write(2, f"WorkerLost: {self._lost}\n".encode())
                self._job.kill()

        threading.Thread(target=end, daemon=True).start()

    def _check(self) -> None:
        """Raise BackendError or WorkerLost when the other ranks can't be told anything any more."""
        self._check_lost()
        self._job.check()

    def _check_lost(self) -> None:
        if self._lost is not None:
            self._has_told.set()
            raise self._lost


def mpirun_path() -> str:
    """Find the mpirun that belongs to this Python's environment, or else the first on PATH.  Raises `BackendError`."""
    beside = Path(sys.executable).parent / "mpirun"
    found = str(beside) if beside.exists() else shutil.which("mpirun")
    if found is None:
        raise UnsuitableBackend("There is no mpirun. Install one: pip install 'dist_relu[mpi]'.")
    return found

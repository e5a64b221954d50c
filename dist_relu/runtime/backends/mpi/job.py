"""An MPI job: its ranks, and how rank 0 and the others talk.

All ranks run the user's script. Rank 0 goes on with it; the other ranks stay where they first ask for a backend and
serve until the script on rank 0 has ended. Messages are polled for, with pauses, because a rank that waits inside MPI
burns a core that another rank may need.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import inf
from typing import Any, NoReturn, final

import cloudpickle

from dist_relu.comm.backoff import Backoff
from dist_relu.comm.shared_memory import attach
from dist_relu.errors import BackendError, WorkerLost
from dist_relu.runtime.backends.heartbeat import Heartbeat, HeartbeatEndpoint
from dist_relu.runtime.backends.in_process import InProcessWorker
from dist_relu.runtime.backends.mpi import reaper
from dist_relu.runtime.backends.mpi.channel import MpiChannel
from dist_relu.runtime.backends.mpi.launcher import launched
from dist_relu.runtime.backends.mpi.membership import (
    LONGEST_PAUSE_S,
    abort_job,
    at_end,
    check_not_forked,
    join_ranks,
    library_name,
    serving,
)
from dist_relu.runtime.process_info import ProcessInfo, by_node, nodes_of
from dist_relu.runtime.worker import Task, Worker, WorkerConfig

_TO_WORKER, _TO_COORDINATOR, _GROUP_TAG = 1, 2, 3
"""Tags of our messages, which have a communicator of their own."""

_CLOSE_TIMEOUT_S = 2.0
_TIME_FOR_MPIRUN_S = 1.0


@dataclass(frozen=True, kw_only=True)
class WorkerGroup:
    """Says which ranks become workers, in their order, and whether they need a channel to one another.

    tasks_before: how many tasks there were in this job, by whomever.
    """

    ranks: tuple[int, ...]
    has_channel: bool
    tasks_before: int


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
        self._channels = _Channels(comm)
        others = [cloudpickle.loads(_receive(comm, rank, _TO_COORDINATOR)) for rank in range(1, self.size)]
        self._rank_infos: list[_RankInfo] = [_RankInfo.here(), *others]
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
                self.comm.send(data, dest=rank, tag=_TO_WORKER)

    def _replies(self) -> dict[int, Any]:
        """Take in the answers that have arrived, by rank; does not wait."""
        arrived = {}
        with self._whole_messages():
            for rank in sorted(self.busy):
                message = self.comm.improbe(source=rank, tag=_TO_COORDINATOR)
                if message is not None:
                    arrived[rank] = cloudpickle.loads(message.recv())
                    self.busy.remove(rank)
        return arrived

    @contextmanager
    def _whole_messages(self) -> Iterator[None]:
        """Note when a message was half sent or half received, since no answer fits its question then."""
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
        _abort(self._reaper)

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
                self.comm.send(cloudpickle.dumps(None), dest=rank, tag=_TO_WORKER)
        except BaseException:  # a second Ctrl-C: nobody else would tell the others
            self.kill()


@dataclass(frozen=True, kw_only=True)
class _RankInfo:
    """What a rank says first.  has_threads: several of its threads may call MPI at once."""

    process: ProcessInfo
    has_threads: bool

    @classmethod
    def here(cls) -> _RankInfo:
        from mpi4py import MPI

        return cls(process=ProcessInfo.in_cluster(), has_threads=MPI.Query_thread() == MPI.THREAD_MULTIPLE)


@dataclass(frozen=True, kw_only=True)
class NodeProcesses:
    """The processes of a node, and what each is called."""

    pids: Sequence[int]
    names: Sequence[str]


Message = NodeProcesses | WorkerGroup | WorkerConfig | HeartbeatEndpoint | Task
"""What rank 0 sends to another rank, which answers; None, without an answer, lets it end."""


def start_reaper(processes: NodeProcesses) -> subprocess.Popen[bytes]:
    """Watch over the ranks of this node; see `dist_relu.runtime.backends.mpi.reaper`."""
    texts = [text for pid, name in zip(processes.pids, processes.names, strict=True) for text in (str(pid), name)]
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", reaper.__file__, *texts],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.read(1)  # now it knows them all
    return process


def _abort(reaper_of_node: subprocess.Popen[bytes] | None) -> NoReturn:
    """End all ranks of the job; those of this node even if mpirun is out of reach."""
    if reaper_of_node and reaper_of_node.stdin:
        with suppress(OSError):
            reaper_of_node.stdin.write(b"!")
            reaper_of_node.stdin.flush()
    try:
        abort_job(launched())
    finally:
        os._exit(1)


@final
class _Channels:
    """Keeps the channels between ranks of the job, made once: there is a limit to the number of communicators."""

    def __init__(self, comm: Any) -> None:
        self._comm = comm
        self._made: dict[tuple[int, ...], MpiChannel] = {}

    def channel(self, group: WorkerGroup) -> MpiChannel | None:
        """Return the channel of the workers of a group, if they need one.  Collective over them."""
        if not group.has_channel:
            return None
        if group.ranks not in self._made:
            ranks = self._comm.Get_group().Incl(group.ranks)
            self._made[group.ranks] = MpiChannel(self._comm.Create_group(ranks, _GROUP_TAG))
        channel = self._made[group.ranks]
        channel.tasks_before = group.tasks_before
        return channel


_job: Job | None = None
_joining = threading.Lock()


def join() -> Job:
    """Take part in this MPI job: returns on rank 0 only; the other ranks serve it, and end with it."""
    global _job  # noqa: PLW0603 - a process is in one MPI job
    with _joining:
        if _job is None:
            comm = join_ranks()
            if comm.Get_rank():
                _ServingRank(comm).serve()
            _job = Job(comm)
            _job.end_with_script()
    return _job


@final
class _ServingRank:
    """A rank other than 0, which serves rank 0."""

    def __init__(self, comm: Any) -> None:
        self._comm = comm
        self._channels = _Channels(comm)
        self._channel: MpiChannel | None = None
        self._worker: Worker | None = None
        self._heartbeat: Heartbeat | None = None
        self._reaper: subprocess.Popen[bytes] | None = None

    def serve(self) -> NoReturn:
        """Answer rank 0 until its script has ended, and end this process: the rest of the script is not for it."""
        end = serving()
        try:
            self._comm.send(cloudpickle.dumps(_RankInfo.here()), dest=0, tag=_TO_COORDINATOR)
            while (message := cloudpickle.loads(_receive(self._comm, 0, _TO_WORKER))) is not None:
                self._comm.send(self._answer(message), dest=0, tag=_TO_COORDINATOR)
            self._leave_group()
            if self._reaper:
                self._reaper.communicate(b".")
        except BaseException:
            # Nobody would ever hear of it otherwise: the other ranks would wait for this one.
            traceback.print_exc()
            sys.stderr.flush()
            _abort(self._reaper)
        end()

    def _answer(self, message: Message) -> bytes:
        match message:
            case NodeProcesses():
                self._reaper = start_reaper(message)
                answer = None
            case WorkerGroup():
                self._leave_group()
                self._channel = self._channels.channel(message)
                answer = None
            case WorkerConfig():
                self._worker = Worker(message, lambda _: None, self._channel)
                answer = self._worker.control
            case HeartbeatEndpoint():
                assert self._worker is not None
                self._heartbeat = Heartbeat([message.connect()], attach(self._worker.control), self._on_loss)
                answer = None
            case Task():
                assert self._worker is not None
                return self._worker.run(message)
        data: bytes = cloudpickle.dumps(answer)
        return data

    def _leave_group(self) -> None:
        """Stop being a worker."""
        if self._heartbeat:
            self._heartbeat.close()
        if self._worker:
            self._worker.close()
        self._heartbeat = self._worker = None

    def _on_loss(self, what: str) -> None:
        """End the job, unless mpirun does so already.  Called by the heartbeat."""
        time.sleep(_TIME_FOR_MPIRUN_S)
        os.write(2, f"WorkerLost: {what}, says host {socket.gethostname()}. The job ends.\n".encode())
        _abort(self._reaper)


def _receive(comm: Any, source: int, tag: int) -> bytes:
    """Receive a message from `source`, polled for with growing pauses."""
    backoff = Backoff(longest_s=LONGEST_PAUSE_S)
    while (message := comm.improbe(source=source, tag=tag)) is None:
        backoff.pause(retry=True)
    data: bytes = message.recv()
    return data

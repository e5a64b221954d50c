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
from dist_relu.runtime.backends.base import info_here
from dist_relu.runtime.backends.heartbeat import Ticket, Watch, visit
from dist_relu.runtime.backends.mpi import reaper
from dist_relu.runtime.backends.mpi.channel import MpiChannel
from dist_relu.runtime.backends.mpi.launcher import launched
from dist_relu.runtime.backends.mpi.membership import (
    LONGEST_PAUSE_S,
    abort_job,
    at_end,
    check_not_forked,
    library_name,
    meet,
    serving,
)
from dist_relu.runtime.process_info import ProcessInfo, by_node, nodes_of
from dist_relu.runtime.worker import Worker, WorkerConfig

_TO_WORKER, _TO_COORDINATOR, _GROUP_TAG = 1, 2, 3
"""Tags of our messages, which have a communicator of their own."""

_CLOSE_TIMEOUT_S = 2.0
_TIME_FOR_MPIRUN_S = 1.0


@dataclass(frozen=True)
class Group:
    """The ranks that become workers, in the order of these; whether they need a channel to one another.

    calls_before: how many calls there were in this job, by whomever.
    """

    ranks: tuple[int, ...]
    has_channel: bool
    calls_before: int


@final
class Job:
    """This MPI job, as rank 0 sees it.

    owing: ranks that have not answered yet.  num_calls: how many calls there were.  worker: the one of this process, if
    there is any.  is_lost: a node does not answer any more.
    """

    def __init__(self, comm: Any) -> None:
        self.comm = comm
        self._pid = os.getpid()
        self.size: int = comm.Get_size()
        self.owing: set[int] = set()
        self.num_calls = 0
        self.worker: Worker | None = None
        self.is_lost = False
        self._has_ended = False
        self._is_out_of_step = False
        self._channels = _Channels(comm)
        others = [cloudpickle.loads(_receive(comm, rank, _TO_COORDINATOR)) for rank in range(1, self.size)]
        self._introductions: list[_Introduction] = [_Introduction.here(), *others]
        self.infos = [introduction.info for introduction in self._introductions]
        order = by_node(self.infos)
        names = [f"Worker {i} (host {self.infos[r].host}, pid {self.infos[r].pid})" for i, r in enumerate(order)]
        nodes = nodes_of([self.infos[rank] for rank in order])
        roll_calls = [_RollCall([self.infos[order[i]].pid for i in node], [names[i] for i in node]) for node in nodes]
        for node, roll_call in zip(nodes[1:], roll_calls[1:], strict=True):
            self.tell([order[node.start]], roll_call)
        self._coroner = _start_coroner(roll_calls[0])
        self.settle()

    def end_with_script(self) -> None:
        """Let the other ranks end when the script ends, or when it calls MPI.Finalize(), which would wait for them."""
        from mpi4py import MPI

        at_end(self.release)
        MPI.COMM_SELF.Set_attr(MPI.Comm.Create_keyval(delete_fn=lambda *_: self.release()), None)

    def check(self) -> None:
        """Raises BackendError or WorkerLost when the other ranks can't be told anything any more."""
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

    def tell(self, ranks: Sequence[int], message: Any) -> None:
        """Send ranks something to answer; they must not owe an answer already."""
        data = cloudpickle.dumps(message)
        with self._whole_messages():
            for rank in ranks:
                assert rank not in self.owing
                self.owing.add(rank)
                self.comm.send(data, dest=rank, tag=_TO_WORKER)

    def replies(self) -> dict[int, Any]:
        """The answers that have arrived, by rank; does not wait."""
        arrived = {}
        with self._whole_messages():
            for rank in sorted(self.owing):
                message = self.comm.improbe(source=rank, tag=_TO_COORDINATOR)
                if message is not None:
                    arrived[rank] = cloudpickle.loads(message.recv())
                    self.owing.remove(rank)
        return arrived

    @contextmanager
    def _whole_messages(self) -> Iterator[None]:
        """After a message that was half sent or half received, no answer fits its question."""
        try:
            yield
        except BaseException:
            self._is_out_of_step = True
            raise

    def settle(self, timeout_s: float = inf) -> dict[int, Any]:
        """Wait until no rank owes an answer, or for `timeout_s`; returns what they answered, by rank."""
        deadline = time.monotonic() + timeout_s
        backoff = Backoff(longest_s=LONGEST_PAUSE_S)
        replies: dict[int, Any] = {}
        while self.owing and time.monotonic() < deadline and not self.is_lost:
            arrived = self.replies()
            replies |= arrived
            backoff.pause(retry=not arrived)
        return replies

    def channel(self, group: Group) -> MpiChannel | None:
        """Rank 0's channel to the others of a group.  Collective over them."""
        return self._channels.channel(group)

    def kill(self) -> NoReturn:
        """End all ranks, at once."""
        _abort(self._coroner)

    def check_threads(self) -> None:
        """Raises BackendError when some rank may call MPI in one thread only, which channels between nodes can't do."""
        ranks = [str(rank) for rank, introduction in enumerate(self._introductions) if not introduction.has_threads]
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
            if self.owing or self.is_lost or self._is_out_of_step:
                # They would hold up the end of the job for as long as they compute.
                sys.stdout.flush()
                sys.stderr.flush()
                self.kill()
            self._coroner.communicate(b".")
            if self.worker:
                self.worker.close()
            for rank in range(1, self.size):
                self.comm.send(cloudpickle.dumps(None), dest=rank, tag=_TO_WORKER)
        except BaseException:  # a second Ctrl-C: nobody else would tell the others
            self.kill()


@dataclass(frozen=True)
class _Introduction:
    """What a rank says first.  has_threads: several of its threads may call MPI at once."""

    info: ProcessInfo
    has_threads: bool

    @classmethod
    def here(cls) -> _Introduction:
        from mpi4py import MPI

        return cls(info_here(), MPI.Query_thread() == MPI.THREAD_MULTIPLE)


@dataclass(frozen=True)
class _RollCall:
    """The processes of a node, and their names."""

    pids: Sequence[int]
    names: Sequence[str]


def _start_coroner(roll_call: _RollCall) -> subprocess.Popen[bytes]:
    """Watch over the ranks of this node; see `dist_relu.runtime.backends.mpi.reaper`."""
    texts = [text for pid, name in zip(roll_call.pids, roll_call.names, strict=True) for text in (str(pid), name)]
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", reaper.__file__, *texts],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.read(1)  # now it knows them all
    return process


def _abort(coroner_of_node: subprocess.Popen[bytes] | None) -> NoReturn:
    """End all ranks of the job; those of this node even if mpirun is out of reach."""
    if coroner_of_node and coroner_of_node.stdin:
        with suppress(OSError):
            coroner_of_node.stdin.write(b"!")
            coroner_of_node.stdin.flush()
    try:
        abort_job(launched())
    finally:
        os._exit(1)


@final
class _Channels:
    """Channels between some of the job's ranks, made once: there is a limit to the number of communicators."""

    def __init__(self, comm: Any) -> None:
        self._comm = comm
        self._made: dict[tuple[int, ...], MpiChannel] = {}

    def channel(self, group: Group) -> MpiChannel | None:
        """For the workers of a group, if they need one.  Collective over them."""
        if not group.has_channel:
            return None
        if group.ranks not in self._made:
            ranks = self._comm.Get_group().Incl(group.ranks)
            self._made[group.ranks] = MpiChannel(self._comm.Create_group(ranks, _GROUP_TAG))
        channel = self._made[group.ranks]
        channel.calls_before = group.calls_before
        return channel


_job: Job | None = None
_joining = threading.Lock()


def join() -> Job:
    """Take part in this MPI job: returns on rank 0 only; the other ranks serve it, and end with it."""
    global _job  # noqa: PLW0603 - a process is in one MPI job
    with _joining:
        if _job is None:
            comm = meet()
            if comm.Get_rank():
                _Rank(comm).serve()
            _job = Job(comm)
            _job.end_with_script()
    return _job


@final
class _Rank:
    """A rank other than 0."""

    def __init__(self, comm: Any) -> None:
        self._comm = comm
        self._channels = _Channels(comm)
        self._channel: MpiChannel | None = None
        self._worker: Worker | None = None
        self._watch: Watch | None = None
        self._coroner: subprocess.Popen[bytes] | None = None

    def serve(self) -> NoReturn:
        """Answer rank 0 until its script has ended, and end this process: the rest of the script is not for it."""
        end = serving()
        try:
            self._comm.send(cloudpickle.dumps(_Introduction.here()), dest=0, tag=_TO_COORDINATOR)
            while (message := cloudpickle.loads(_receive(self._comm, 0, _TO_WORKER))) is not None:
                self._comm.send(self._answer(message), dest=0, tag=_TO_COORDINATOR)
            self._let_go()
            if self._coroner:
                self._coroner.communicate(b".")
        except BaseException:
            # Nobody would ever hear of it otherwise: the other ranks would wait for this one.
            traceback.print_exc()
            sys.stderr.flush()
            _abort(self._coroner)
        end()

    def _answer(self, message: Any) -> bytes:
        match message:
            case _RollCall():
                self._coroner = _start_coroner(message)
                answer = None
            case Group():
                self._let_go()
                self._channel = self._channels.channel(message)
                answer = None
            case WorkerConfig():
                self._worker = Worker(message, lambda _: None, self._channel)
                answer = self._worker.control
            case Ticket():
                assert self._worker is not None
                self._watch = Watch([visit(message)], attach(self._worker.control), self._on_loss)
                answer = None
            case call:
                assert self._worker is not None
                return self._worker.run(call)
        data: bytes = cloudpickle.dumps(answer)
        return data

    def _let_go(self) -> None:
        """End being a worker."""
        if self._watch:
            self._watch.close()
        if self._worker:
            self._worker.close()
        self._watch = self._worker = None

    def _on_loss(self, what: str) -> None:
        """Called by the watch: end the job, unless mpirun does so already."""
        time.sleep(_TIME_FOR_MPIRUN_S)
        os.write(2, f"WorkerLost: {what}, says host {socket.gethostname()}. The job ends.\n".encode())
        _abort(self._coroner)


def _receive(comm: Any, source: int, tag: int) -> bytes:
    """A message from `source`, polled for with growing pauses."""
    backoff = Backoff(longest_s=LONGEST_PAUSE_S)
    while (message := comm.improbe(source=source, tag=tag)) is None:
        backoff.pause(retry=True)
    data: bytes = message.recv()
    return data

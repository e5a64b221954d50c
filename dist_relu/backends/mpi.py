"""Workers as the ranks of an MPI job.

All ranks run the user's script. Rank 0 goes on with it and is worker 0 besides; the other ranks stay where they
first ask for a backend and serve until the script on rank 0 has ended. Messages are polled for, with pauses,
because a rank that waits inside MPI burns a core that another rank may need.
"""

from __future__ import annotations

import atexit
import ctypes
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any, NoReturn, final

import cloudpickle

from dist_relu.backends import coroner
from dist_relu.backends.base import GRACE_AFTER_ERROR_S, Backend, EventHandler, EventsHere, values
from dist_relu.collectives.barrier import abort, control_shape
from dist_relu.collectives.memory import SharedArray
from dist_relu.errors import BackendError
from dist_relu.worker import Call, Hello, Raised, Reply, Setup, Worker

_TO_WORKER, _TO_COORDINATOR = 28401, 28402
"""Tags of our messages in COMM_WORLD, which the user's own functions may use as well."""

_START_TIMEOUT_S = 60.0
_CLOSE_TIMEOUT_S = 2.0
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.00002, 0.002


@final
class MpiBackend(Backend):
    """The ranks of this MPI job; a script may use only the first `workers` of them.

    Rank 0 computes in the user's own thread: an error of another rank is seen when rank 0 next waits for it.
    """

    def __init__(self, workers: int | None, threads_per_worker: int) -> None:
        job = join()
        num_workers = job.size if workers is None else workers
        if num_workers > job.size:
            raise BackendError(
                f"workers={num_workers}, but MPI started {job.size} ranks. "
                f"Start the job with mpirun -n {num_workers}, or pass workers <= {job.size}."
            )
        self._job = job
        self._peers = job.hellos[:num_workers]
        if len({peer.node for peer in self._peers}) > 1:
            hosts = ", ".join(sorted({peer.host for peer in self._peers}))
            raise BackendError(f"The ranks run on several nodes ({hosts}); this version needs them all on one.")
        self._events = EventsHere()
        self._control = SharedArray(control_shape(num_workers), "int64")
        setups = [Setup(rank, self._peers, self._control.handle, threads_per_worker) for rank in range(num_workers)]
        job.settle()
        for setup in setups[1:]:
            job.send(setup, setup.rank)
        self._worker = Worker(setups[0], self._events.report)
        job.settle()  # all have mapped the control memory

    @property
    def name(self) -> str:
        return "mpi"

    @property
    def peers(self) -> Sequence[Hello]:
        return self._peers

    def call(self, call: Call, on_event: EventHandler) -> list[Any]:
        self._job.settle()
        try:
            for rank in range(1, len(self._peers)):
                self._job.send(call, rank)
            with self._events.to(on_event):
                replies: dict[int, Reply] = {0: cloudpickle.loads(self._worker.run(call))}
            deadline = None
            patience = Patience()
            while self._job.owing and (deadline is None or time.monotonic() < deadline):
                arrived = self._job.replies()
                replies |= arrived
                if deadline is None and any(isinstance(reply, Raised) for reply in replies.values()):
                    deadline = time.monotonic() + GRACE_AFTER_ERROR_S
                patience.pause(again=not arrived)
        except BaseException:
            abort(self._control.array, call.number)
            raise
        return values([replies[rank] for rank in sorted(replies)])

    def close(self) -> None:
        self._worker.close()


@final
class Job:
    """This MPI job, as rank 0 sees it."""

    def __init__(self, comm: Any) -> None:
        self.comm = comm
        self.size: int = comm.Get_size()
        self.owing: set[int] = set()  # ranks that have not answered yet
        self.hellos = [Hello.here()] + [self._hello(rank) for rank in range(1, self.size)]
        _unlink_mpich_files()  # all ranks have mapped them by now
        self._coroner = _start_coroner(self.hellos)
        atexit.register(self._release)

    def send(self, message: Any, rank: int) -> None:
        """Send a rank something to answer; it must not owe an answer already."""
        assert rank not in self.owing
        self.comm.send(cloudpickle.dumps(message), dest=rank, tag=_TO_WORKER)
        self.owing.add(rank)

    def replies(self) -> dict[int, Any]:
        """The answers that have arrived, by rank; does not wait."""
        arrived = {}
        for rank in sorted(self.owing):
            message = self.comm.improbe(source=rank, tag=_TO_COORDINATOR)
            if message is not None:
                arrived[rank] = cloudpickle.loads(message.recv())
                self.owing.remove(rank)
        return arrived

    def settle(self, timeout_s: float = inf) -> None:
        """Wait until no rank owes an answer, or for `timeout_s`; the answers are of no interest any more."""
        deadline = time.monotonic() + timeout_s
        patience = Patience()
        while self.owing and time.monotonic() < deadline:
            patience.pause(again=not self.replies())

    def _hello(self, rank: int) -> Hello:
        try:
            hello = cloudpickle.loads(_receive(self.comm, rank, _TO_COORDINATOR, _START_TIMEOUT_S))
        except TimeoutError:
            raise BackendError(
                f"Rank {rank} of {self.size} did not call dist_relu.start() within {_START_TIMEOUT_S:.0f} seconds."
            ) from None
        assert isinstance(hello, Hello)
        return hello

    def _release(self) -> None:
        """Let the other ranks end, and with them the job, when the script has ended."""
        self.settle(_CLOSE_TIMEOUT_S)
        self._coroner.communicate(b".")
        if self.owing:  # they would hold up the end of the job for as long as they compute
            sys.stdout.flush()
            sys.stderr.flush()
            self.comm.Abort(1)
        for rank in range(1, self.size):
            self.comm.send(cloudpickle.dumps(None), dest=rank, tag=_TO_WORKER)


def mpirun_path() -> str:
    """The mpirun that belongs to this Python's environment, or else the first on PATH.  Raises `BackendError`."""
    beside = Path(sys.executable).parent / "mpirun"
    found = str(beside) if beside.exists() else shutil.which("mpirun")
    if found is None:
        raise BackendError("There is no mpirun. Install one: pip install 'dist_relu[mpi]'.")
    return found


def _start_coroner(hellos: Sequence[Hello]) -> subprocess.Popen[bytes]:
    """Watch over the ranks of this node; see `dist_relu.backends.coroner`."""
    names = [
        text
        for rank, hello in enumerate(hellos)
        if hello.node == hellos[0].node
        for text in (str(hello.pid), f"Worker {rank} (host {hello.host}, pid {hello.pid})")
    ]
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", coroner.__file__, *names],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.read(1)  # now it knows them all
    return process


_job: Job | None = None


def join() -> Job:
    """Take part in this MPI job: returns on rank 0 only; the other ranks serve it, and end with it."""
    global _job  # noqa: PLW0603 - a process is in one MPI job
    if _job is None:
        try:
            from mpi4py import MPI
        except ImportError as error:
            raise BackendError(
                f"The MPI backend needs mpi4py and an MPI library ({error}). "
                "Install them: pip install 'dist_relu[mpi]'."
            ) from None
        if MPI.COMM_WORLD.Get_rank():
            _serve(MPI.COMM_WORLD)
        _job = Job(MPI.COMM_WORLD)
    return _job


def _unlink_mpich_files() -> None:
    """Take the names from MPICH's files in /dev/shm: they live on while mapped, and a killed job leaves none behind."""
    for mapping in Path("/proc/self/maps").read_text().splitlines():
        path = mapping.split(maxsplit=5)[-1]
        if path.startswith("/dev/shm/mpich_shm_") and not path.endswith(" (deleted)"):
            Path(path).unlink(missing_ok=True)


def _serve(comm: Any) -> NoReturn:
    """Answer rank 0 until its script has ended, and end this process: the rest of the script is not for it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for rank 0
    try:
        comm.send(cloudpickle.dumps(Hello.here()), dest=0, tag=_TO_COORDINATOR)
        worker: Worker | None = None
        while (message := cloudpickle.loads(_receive(comm, 0, _TO_WORKER))) is not None:
            if isinstance(message, Setup):
                if worker:
                    worker.close()
                worker = Worker(message, lambda _: None)
                reply = cloudpickle.dumps(None)
            else:
                assert worker is not None
                reply = worker.run(message)
            comm.send(reply, dest=0, tag=_TO_COORDINATOR)
    except BaseException:
        # Nobody would ever hear of it otherwise: the other ranks would wait for this one.
        traceback.print_exc()
        sys.stderr.flush()
        comm.Abort(1)
    # SystemExit could be caught by the script, and os._exit makes mpirun lose the exit code of rank 0.
    ctypes.pythonapi.Py_Exit(0)
    raise AssertionError("unreachable")


def _receive(comm: Any, source: int, tag: int, timeout_s: float = inf) -> bytes:
    """A message from `source`, polled for with growing pauses.  Raises TimeoutError."""
    deadline = time.monotonic() + timeout_s
    patience = Patience()
    while (message := comm.improbe(source=source, tag=tag)) is None:
        if time.monotonic() > deadline:
            raise TimeoutError
        patience.pause(again=True)
    data: bytes = message.recv()
    return data


@final
class Patience:
    """Pauses that grow from some microseconds to some milliseconds."""

    def __init__(self) -> None:
        self._pause_s = _SHORTEST_PAUSE_S

    def pause(self, *, again: bool) -> None:
        """Sleep; longer than before if it is for the same thing `again`."""
        self._pause_s = min(self._pause_s * 1.5, _LONGEST_PAUSE_S) if again else _SHORTEST_PAUSE_S
        time.sleep(self._pause_s)

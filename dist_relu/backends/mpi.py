"""Workers as the ranks of an MPI job.

All ranks run the user's script. Rank 0 goes on with it and is worker 0 besides; the other ranks stay where they
first ask for a backend and serve until the script on rank 0 has ended. Messages are polled for, with pauses,
because a rank that waits inside MPI burns a core that another rank may need.
"""

from __future__ import annotations

import atexit
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, final

import cloudpickle

from dist_relu.backends import coroner
from dist_relu.backends.base import GRACE_AFTER_ERROR_S, Backend, EventHandler, values
from dist_relu.collectives.barrier import control_shape
from dist_relu.collectives.memory import SharedArray
from dist_relu.errors import BackendError
from dist_relu.worker import Call, Hello, Returned, Setup, Worker

_TO_WORKER, _TO_COORDINATOR = 1, 2
_START_TIMEOUT_S = 60.0
_LONGEST_PAUSE_S = 0.002


@final
class MpiBackend(Backend):
    """The ranks of this MPI job; a script may use only the first `workers` of them."""

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
        self._on_event: EventHandler = lambda _: None
        self._control = SharedArray(control_shape(num_workers), "int64")
        setups = [Setup(rank, self._peers, self._control.handle, threads_per_worker) for rank in range(num_workers)]
        for setup in setups[1:]:
            job.send(setup, setup.rank)
        self._worker = Worker(setups[0], self._report)
        for setup in setups[1:]:
            job.receive(setup.rank)  # attached to the control memory

    @property
    def name(self) -> str:
        return "mpi"

    @property
    def peers(self) -> Sequence[Hello]:
        return self._peers

    def call(self, call: Call, on_event: EventHandler) -> list[Any]:
        self._on_event = on_event
        for rank in range(1, len(self._peers)):
            self._job.send(call, rank)
        replies = {0: self._worker.run(call)}
        patience = _Patience()
        deadline = None
        while len(replies) < len(self._peers):
            for rank in set(range(len(self._peers))) - replies.keys():
                message = self._job.poll(rank)
                if message and message[0] == call.number:  # not a late reply to a call that was given up
                    replies[rank] = message[1]
                    patience = _Patience()
            if deadline is None and not all(isinstance(reply, Returned) for reply in replies.values()):
                deadline = time.monotonic() + GRACE_AFTER_ERROR_S
            if deadline is not None and time.monotonic() > deadline:
                break
            patience.pause()
        return values([replies[rank] for rank in sorted(replies)])

    def close(self) -> None:
        self._worker.close()

    def _report(self, event: Any) -> None:
        self._on_event(event)


@final
class Job:
    """This MPI job, as rank 0 sees it."""

    def __init__(self, comm: Any) -> None:
        self.comm = comm
        self.size: int = comm.Get_size()
        self.hellos = [Hello.here()] + [self._hello(rank) for rank in range(1, self.size)]
        self._coroner = _start_coroner(self.hellos)
        atexit.register(self._release)

    def send(self, message: Any, rank: int) -> None:
        self.comm.send(cloudpickle.dumps(message), dest=rank, tag=_TO_WORKER)

    def receive(self, rank: int) -> Any:
        return cloudpickle.loads(_receive(self.comm, rank, _TO_COORDINATOR))

    def poll(self, rank: int) -> Any:
        """A message from `rank`, or None if there is none yet."""
        message = self.comm.improbe(source=rank, tag=_TO_COORDINATOR)
        return None if message is None else cloudpickle.loads(message.recv())

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
        self._coroner.communicate(b".")
        for rank in range(1, self.size):
            self.send(None, rank)


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
    """Take part in this MPI job: returns on rank 0 only; the other ranks serve it and then exit."""
    global _job  # noqa: PLW0603 - a process is in one MPI job
    if _job is None:
        try:
            from mpi4py import MPI
        except ImportError as error:
            raise BackendError(
                f"The MPI backend needs mpi4py and an MPI library ({error}). "
                "Install them: pip install 'dist_relu[mpi]'."
            ) from None
        comm = MPI.COMM_WORLD.Dup()
        comm.Barrier()  # all ranks have mapped MPICH's shared memory
        _unlink_mpich_files()
        if comm.Get_rank():
            _serve(comm)
        _job = Job(comm)
    return _job


def _unlink_mpich_files() -> None:
    """Take the names from MPICH's files in /dev/shm: they live on while mapped, and a killed job leaves none behind."""
    for mapping in Path("/proc/self/maps").read_text().splitlines():
        path = mapping.split(maxsplit=5)[-1]
        if path.startswith("/dev/shm/mpich_shm_") and not path.endswith(" (deleted)"):
            Path(path).unlink(missing_ok=True)


def _serve(comm: Any) -> NoReturn:
    """Answer calls until rank 0's script has ended."""
    try:
        comm.send(cloudpickle.dumps(Hello.here()), dest=0, tag=_TO_COORDINATOR)
        worker: Worker | None = None
        while True:
            message = cloudpickle.loads(_receive(comm, 0, _TO_WORKER))
            if message is None:
                break
            if isinstance(message, Setup):
                if worker:
                    worker.close()
                worker = Worker(message, lambda _: None)
                reply: Any = None
            else:
                assert worker is not None
                assert isinstance(message, Call)
                reply = (message.number, worker.run(message))
            comm.send(cloudpickle.dumps(reply), dest=0, tag=_TO_COORDINATOR)
    except BaseException:
        # Nobody would ever hear of it otherwise: the other ranks would wait for this one.
        traceback.print_exc()
        sys.stderr.flush()
        comm.Abort(1)
    sys.exit(0)


def _receive(comm: Any, source: int, tag: int, timeout_s: float | None = None) -> bytes:
    """A message from `source`, polled for with growing pauses.  Raises TimeoutError."""
    start = time.monotonic()
    patience = _Patience()
    while True:
        message = comm.improbe(source=source, tag=tag)
        if message is not None:
            data: bytes = message.recv()
            return data
        if timeout_s is not None and time.monotonic() - start > timeout_s:
            raise TimeoutError
        patience.pause()


@final
class _Patience:
    """Pauses that grow from some microseconds to some milliseconds."""

    def __init__(self) -> None:
        self._pause_s = 0.00002

    def pause(self) -> None:
        time.sleep(self._pause_s)
        self._pause_s = min(self._pause_s * 1.5, _LONGEST_PAUSE_S)

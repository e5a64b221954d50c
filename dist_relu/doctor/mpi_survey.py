"""Asking all ranks of an MPI job: every rank runs `dist-relu doctor`; rank 0 asks, the others answer.

Rank 0 waits for nothing without a limit: a network that swallows messages is what one calls a doctor for.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.doctor import watchdog
from dist_relu.doctor.finding import Finding, State
from dist_relu.doctor.mpi import short_name
from dist_relu.doctor.survey import LARGEST_BYTES, Exchange, Process, Survey, measure
from dist_relu.errors import BackendError

_SIZE_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE")
_RANK_VARIABLES = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK")
_COMMAND, _ANSWER, _DATA = 28411, 28412, 28413
_INIT_TIMEOUT_S = 60.0
_ANSWER_TIMEOUT_S = 60.0
_TIME_FOR_OUTPUT_S = 0.5
_LOOK_TIMEOUT_S = 400.0
"""For all checks of another machine, which may have to compile all kernels."""


@dataclass(frozen=True)
class _Look:
    """Carry out the checks of a single machine, and answer with the findings."""


@dataclass(frozen=True)
class _Clock:
    """Answer with your time."""


@dataclass(frozen=True)
class _Listen:
    """Send back every array that comes, at once, until the next command."""


@dataclass(frozen=True)
class _End:
    """Nothing more will be asked."""


def launched_rank() -> int:
    """Return the rank that the launcher gave this process: known even where MPI does not work."""
    return next((int(os.environ[name]) for name in _RANK_VARIABLES if name in os.environ), 0)


def _world() -> Any:
    """Start MPI, and return COMM_WORLD.  Ends this process when MPI can't start, as the other ranks do then."""
    name = f"Rank {launched_rank()} (on {socket.gethostname()})"
    command = [sys.executable, "-I", "-S", watchdog.__file__, str(os.getpid()), f"{_INIT_TIMEOUT_S:.0f}", name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True):  # it ends with its standard input
        from mpi4py import MPI
    # MPI_Init returns when all ranks of the node have mapped MPICH's files: without names, they can't be left behind.
    for mapping in Path("/proc/self/maps").read_text().splitlines():
        path = mapping.split(maxsplit=5)[-1]
        if path.startswith("/dev/shm/mpich_shm_") and not path.endswith(" (deleted)"):
            Path(path).unlink(missing_ok=True)
    return MPI.COMM_WORLD


def serve(look: Callable[[], Sequence[Finding]]) -> None:
    """Answer rank 0 until it has no more questions.  look: carries out the checks of a single machine."""
    comm = _world()
    try:
        _answer_questions(comm, look)
    except BaseException:  # nobody would ever hear of it otherwise
        traceback.print_exc()
        sys.stderr.flush()
        comm.Abort(1)


def _answer_questions(comm: Any, look: Callable[[], Sequence[Finding]]) -> None:
    if comm.Get_size() == 1:
        return  # mpi4py found another MPI; rank 0 says so
    comm.send(cloudpickle.dumps(Process.here(comm.Get_rank())), dest=0, tag=_ANSWER)
    while not isinstance(command := cloudpickle.loads(_receive(comm, 0, _COMMAND)), _End):
        if isinstance(command, _Look):
            comm.send(cloudpickle.dumps(list(look())), dest=0, tag=_ANSWER)
        elif isinstance(command, _Clock):
            comm.send(cloudpickle.dumps(time.time()), dest=0, tag=_ANSWER)
        else:
            _send_back(comm)


def _send_back(comm: Any) -> None:
    """Send back every array that comes.  Polls without a pause, which would be measured."""
    from mpi4py import MPI

    status = MPI.Status()
    while not comm.Iprobe(source=0, tag=_COMMAND):
        message = comm.Improbe(source=0, tag=_DATA, status=status)
        if message is not None:
            buffer = np.empty(status.Get_count(MPI.BYTE), np.uint8)
            message.Recv(buffer)
            comm.Send(buffer, dest=0, tag=_DATA)


def survey(
    look: Callable[[], Sequence[Finding]], answer_timeout_s: float = _ANSWER_TIMEOUT_S
) -> tuple[list[Finding], Survey]:
    """Survey the job on rank 0; returns what `look` finds here, and the survey.

    answer_timeout_s: how long to wait for a rank to present itself.  Raises BackendError.
    """
    comm = _world()
    from mpi4py import MPI

    expected = next((int(os.environ[name]) for name in _SIZE_VARIABLES if name in os.environ), comm.Get_size())
    library = short_name(MPI.Get_library_version())
    if comm.Get_size() != expected:
        raise BackendError(
            f"The launcher started {expected} ranks, but each believes to be alone: mpi4py found another MPI "
            f"({library}). Use the mpirun of that library."
        )
    processes = [Process.here(0)] + [
        _answer(comm, rank, "a node that did not say its name", answer_timeout_s) for rank in range(1, comm.Get_size())
    ]
    firsts = {process.node: process for process in reversed(processes)}
    others = sorted(
        (process for process in firsts.values() if process.node != processes[0].node),
        key=lambda process: process.rank,
    )
    for process in others:
        comm.send(cloudpickle.dumps(_Look()), dest=process.rank, tag=_COMMAND)
    here = list(look())
    elsewhere = [
        (process.host, finding)
        for process in others
        for finding in _answer(comm, process.rank, process.host, _LOOK_TIMEOUT_S)
    ]
    links = []
    for process in others:
        rank, host = process.rank, process.host

        def clock(rank: int = rank, host: str = host) -> float:
            return float(_ask(comm, rank, host, _Clock()))

        comm.send(cloudpickle.dumps(_Listen()), dest=rank, tag=_COMMAND)
        links.append(measure(processes[0].host, host, _exchange_with(comm, rank, host), clock))
    for rank in range(1, comm.Get_size()):
        comm.send(cloudpickle.dumps(_End()), dest=rank, tag=_COMMAND)
    ranks = Finding("MPI", State.OK, f"{library} runs {expected} {'rank' if expected == 1 else 'ranks'}.")
    return [*here, ranks], Survey("MPI", processes, links, elsewhere)


def abort() -> None:
    """End all ranks of the job: some can't be reached."""
    from mpi4py import MPI

    time.sleep(_TIME_FOR_OUTPUT_S)  # what was said is on its way through mpirun, and would be overtaken
    MPI.COMM_WORLD.Abort(1)


def _exchange_with(comm: Any, rank: int, host: str) -> Exchange:
    outgoing = np.zeros(LARGEST_BYTES, np.uint8)

    def exchange(buffer: Array) -> None:
        deadline = time.monotonic() + _ANSWER_TIMEOUT_S
        requests = [
            comm.Irecv(buffer, source=rank, tag=_DATA),
            comm.Isend(outgoing[: buffer.size], dest=rank, tag=_DATA),
        ]
        while not all(request.Test() for request in requests):
            if time.monotonic() > deadline:
                raise _silence(rank, host, _ANSWER_TIMEOUT_S)

    return exchange


def _ask(comm: Any, rank: int, host: str, command: _Clock) -> Any:
    comm.send(cloudpickle.dumps(command), dest=rank, tag=_COMMAND)
    return _answer(comm, rank, host, _ANSWER_TIMEOUT_S)


def _answer(comm: Any, rank: int, host: str, timeout_s: float) -> Any:
    try:
        return cloudpickle.loads(_receive(comm, rank, _ANSWER, timeout_s))
    except TimeoutError:
        raise _silence(rank, host, timeout_s) from None


def _silence(rank: int, host: str, timeout_s: float) -> BackendError:
    return BackendError(
        f"Rank {rank} (on {host}) did not answer within {timeout_s:g} seconds. See whether its node can be reached, "
        "whether a firewall closes ports between nodes, and whether it runs `dist-relu doctor`."
    )


def _receive(comm: Any, source: int, tag: int, timeout_s: float = float("inf")) -> bytes:
    deadline = time.monotonic() + timeout_s
    pause_s = 0.00002
    while (message := comm.improbe(source=source, tag=tag)) is None:
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.002)
    content: bytes = message.recv()
    return content

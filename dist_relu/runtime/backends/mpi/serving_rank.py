"""What the ranks of an MPI job other than 0 do: they serve rank 0 until its script ends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import traceback
from typing import Any, NoReturn, final

import cloudpickle

from dist_relu.comm.shared_memory import attach
from dist_relu.comm.stall_detector import Resumed, Stalled
from dist_relu.runtime.backends.heartbeat import Heartbeat, HeartbeatEndpoint
from dist_relu.runtime.backends.mpi import rank_guard
from dist_relu.runtime.backends.mpi.channel import Channels, MpiChannel
from dist_relu.runtime.backends.mpi.membership import serving
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
from dist_relu.runtime.worker import Task, Worker, WorkerConfig

_TIME_FOR_MPIRUN_S = 1.0


def _report(event: Any) -> None:
    """Tell the user whom this rank waits for; no other event gets anywhere."""
    if isinstance(event, Stalled | Resumed):
        os.write(2, f"{event.text}\n".encode())


@final
class ServingRank:
    """A rank other than 0, which serves rank 0."""

    def __init__(self, comm: Any) -> None:
        self._comm = comm
        self._channels = Channels(comm)
        self._channel: MpiChannel | None = None
        self._worker: Worker | None = None
        self._heartbeat: Heartbeat | None = None
        self._reaper: subprocess.Popen[bytes] | None = None

    def serve(self) -> NoReturn:
        """Answer rank 0 until its script has ended, and end this process: the rest of the script is not for it."""
        end = serving()
        try:
            self._comm.send(cloudpickle.dumps(RankInfo.here()), dest=0, tag=TO_COORDINATOR)
            while (message := cloudpickle.loads(receive(self._comm, 0, TO_WORKER))) is not None:
                self._comm.send(self._answer(message), dest=0, tag=TO_COORDINATOR)
            self._leave_group()
            if self._reaper:
                self._reaper.communicate(b".")
        except BaseException:
            # Nobody would ever hear of it otherwise: the other ranks would wait for this one.
            traceback.print_exc()
            sys.stderr.flush()
            kill_job(self._reaper)
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
                self._worker = Worker(message, _report, self._channel)
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
        rank_guard.tell(f"lost {what}")
        os.write(2, f"WorkerLost: {what}, says host {socket.gethostname()}. The job ends.\n".encode())
        kill_job(self._reaper)

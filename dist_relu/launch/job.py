"""One MPI job: started, watched, and how it ended.

Ranks and their guards tell what the launcher must know in lines on the job's standard error, which mpirun brings from
every host; see `rank_guard`. All other lines are passed on. mpirun is in a session of its own, so that a Ctrl-C on the
terminal reaches it once, from here. When this process is killed, mpirun gets SIGTERM, which it passes on.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import final

from dist_relu.core.machine import how_it_ended
from dist_relu.runtime.backends.local.supervisor import descendants
from dist_relu.runtime.backends.mpi import init_watchdog, rank_guard

_LOOK_PERIOD_S = 0.1
_TIME_FOR_REST_S = 1.0
"""For what mpirun has not written yet when it ends; a process that a rank left behind may keep the pipe open."""
_TIME_FOR_MPIRUN_S = 20.0
"""For mpirun to end when a rank has: where a link is down, it may wait for ever."""
_TIME_TO_END_S = 5.0
_PR_SET_PDEATHSIG = 1


@final
@dataclass(frozen=True, kw_only=True)
class JobEnd:
    """How a job ended.  code: as shells have it.  loss: what was lost, in words; None when it ended by itself."""

    code: int
    loss: str | None


@final
class Job:
    """An MPI job that runs.  command: mpirun, its options, and a program behind a guard.

    start_timeout_s: how long it may take until all ranks have joined in `dist_relu.start()`.
    """

    def __init__(self, command: Sequence[str], start_timeout_s: float) -> None:
        self._mark = f"dist_relu-{secrets.token_hex(8)}".encode()
        self._began_s = time.time()
        self._deadline = time.monotonic() + start_timeout_s
        self._start_timeout_s = start_timeout_s
        self._has_started = False
        self._reports: list[list[str]] = []
        self._rest = b""
        self._code_of_sigterm = 128 + signal.SIGTERM
        parent = os.getpid()

        def end_with_launcher() -> None:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={
                **os.environ,
                rank_guard.VARIABLE: self._mark.decode(),
                rank_guard.LIMIT_VARIABLE: str(start_timeout_s),
            },
            start_new_session=True,
            preexec_fn=end_with_launcher,  # noqa: PLW1509 - there is no other thread
        )

    def signal(self, number: int) -> None:
        """Pass a signal on to the ranks."""
        if number == signal.SIGHUP:  # for which mpirun would kill them
            self._code_of_sigterm, number = 128 + signal.SIGHUP, signal.SIGTERM
        self._process.send_signal(number)

    def wait(self) -> JobEnd:
        """Wait until the job has ended, and nothing is left of it on this machine."""
        assert self._process.stderr is not None
        with self._process.stderr as stderr:
            os.set_blocking(stderr.fileno(), False)
            events = select.poll()
            events.register(stderr, select.POLLIN)
            while self._process.poll() is None:
                if events.poll(_LOOK_PERIOD_S * 1000) and not self._read(stderr.fileno()):
                    time.sleep(_LOOK_PERIOD_S)  # nobody writes any more
                if time.monotonic() > self._deadline:
                    self._kill()
            deadline = time.monotonic() + _TIME_FOR_REST_S
            while (left_s := deadline - time.monotonic()) > 0 and events.poll(left_s * 1000):
                if not self._read(stderr.fileno()):
                    break
        self._pass_on(self._rest)
        _remove_unused_memory(self._began_s)
        code = self._process.returncode
        shown = code if code >= 0 else 128 - code
        return JobEnd(code=self._code_of_sigterm if shown == 128 + signal.SIGTERM else shown, loss=self._loss(code))

    def _read(self, descriptor: int) -> bool:
        """Take in what the job says; returns whether it may say more."""
        try:
            arrived = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return True
        *lines, self._rest = (self._rest + arrived).split(b"\n")
        for line in lines:
            before, mark, report = line.partition(self._mark)
            if mark:
                self._hear(report.decode(errors="replace").strip())
                self._pass_on(before)
            else:
                self._pass_on(line + b"\n")
        return bool(arrived)

    def _hear(self, report: str) -> None:
        self._reports.append(report.split(maxsplit=1))
        if report == "started":
            self._has_started, self._deadline = True, inf
        else:
            self._deadline = time.monotonic() + _TIME_FOR_MPIRUN_S

    def _pass_on(self, data: bytes) -> None:
        with suppress(OSError):  # nobody reads it any more
            while data:
                data = data[os.write(2, data) :]

    def _loss(self, code: int) -> str | None:
        """Say what was lost, by the first who spoke: others end because of it."""
        losses = [rest for kind, *rest in self._reports if kind == "lost"]
        ends = [rest[0].split() for kind, *rest in self._reports if kind == "ended"]
        if losses:
            return losses[0][0]
        if ends:
            rank, host, pid, how = ends[0]
            return f"Rank {rank} (host {host}, pid {pid}) {how_it_ended(int(how))}" if how.startswith("-") else None
        if code < 0:
            return f"mpirun was killed by signal {-code}"
        if code and self._has_started:
            return f"The job ended with code {code}, and no rank said why"
        return None

    def _kill(self) -> None:
        """End a job that does not start or does not end, whatever its processes do."""
        if not self._reports:
            self._hear(f"lost Not all ranks came through dist_relu.start() within {self._start_timeout_s:g} s")
        processes = []
        for pid in (self._process.pid, *descendants(self._process.pid)):
            with suppress(ProcessLookupError):
                processes.append(os.pidfd_open(pid))
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_TIME_TO_END_S)
        for process in processes:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGKILL)
            os.close(process)
        self._process.wait()


def _remove_unused_memory(since_s: float) -> None:
    """Remove shared memory of UCX, below MPICH, that ranks left on this host.

    It has a name for some milliseconds while MPI starts: whoever is killed then leaves it behind.
    since_s: what is older, in seconds since 1970, belongs to others.
    """
    left = set()
    for path in Path("/dev/shm").glob("ucx_shm_posix_*"):
        with suppress(FileNotFoundError):
            status = path.stat()
            if status.st_uid == os.getuid() and status.st_ctime >= since_s:
                left.add(str(path))
    if left:
        used = {path for pid in os.listdir("/proc") if pid.isdigit() for path in init_watchdog.open_files(int(pid))}
        for name in left - used:
            Path(name).unlink(missing_ok=True)

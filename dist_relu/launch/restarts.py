"""A job that is started again when a rank of it was lost, from the last checkpoint, as often as it makes progress."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import final

from dist_relu.launch.hosts import Host
from dist_relu.launch.job import Job, JobEnd
from dist_relu.launch.mpirun import Mpirun
from dist_relu.run.checkpoints import checkpoint_files

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOOK_PERIOD_S = 0.05


@final
@dataclass(frozen=True, kw_only=True)
class Program:
    """What each rank runs.

    first: the command.  again: the one that goes on from the last checkpoint.  checkpoints: the folder that holds them;
    None where nobody knows.
    """

    first: Sequence[str]
    again: Sequence[str]
    checkpoints: Path | None

    def last_step(self) -> int | None:
        """Return the step of the last checkpoint, None where there is none."""
        files = checkpoint_files(self.checkpoints) if self.checkpoints else []
        return files[-1][0] if files else None


@final
@dataclass(kw_only=True)
class Launcher:
    """Runs a program as an MPI job, again after each loss.

    ranks: how many, or as many of them as the hosts have room for that can be reached.  hosts: none for this machine.
    max_restarts: so many in a row without a newer checkpoint.  tell: is called with what the user is to know.
    start_timeout_s: see `Job`.  reach_timeout_s: how long it may take to start a program on a host that is there.
    first_pause_s: before the first restart; twice as long before each further one without progress, up to
    longest_pause_s.
    """

    mpirun: Mpirun
    program: Program
    ranks: int
    hosts: Sequence[Host]
    max_restarts: int
    tell: Callable[[str], object]
    start_timeout_s: float = 120.0
    reach_timeout_s: float = 20.0
    first_pause_s: float = 1.0
    longest_pause_s: float = 60.0
    _job: Job | None = field(default=None, init=False)
    _signal: int = field(default=0, init=False)

    def run(self) -> int:
        """Run the program until it ends by itself, or can't be helped; returns the exit code of the last job.

        SIGINT, SIGTERM and SIGHUP are passed on, and the job that they end is the last one.
        """
        with self._passing_signals_on():
            command, hosts, restarts = self.program.first, self.hosts, 0
            step = self.program.last_step()
            while not self._signal:
                end = self._run_job(command, hosts)
                if end.code == 0 or self._signal:
                    return end.code
                hosts = self.mpirun.reached(self.hosts, self.reach_timeout_s)
                gone = [host.name for host in self.hosts if host not in hosts]
                loss = end.loss or (_cut_off(gone) if gone else None)
                if loss is None:
                    return end.code
                before, step = step, self.program.last_step()
                restarts = restarts + 1 if step == before else 1
                if restarts > self.max_restarts:
                    self.tell(f"{loss}.{self._no_progress()}")
                    return end.code
                if gone and not hosts:
                    self.tell(f"{loss}. No other host is left.")
                    return end.code
                pause_s = min(self.first_pause_s * 2 ** (restarts - 1), self.longest_pause_s)
                how = [f"without {_named('host', gone)} on {self._num_ranks(hosts)} ranks"] if gone else []
                if self.program.checkpoints:
                    how.append(f"from {'the beginning' if step is None else f'step {step:,}'}")
                again = ", ".join([f"Starting again in {pause_s:g} s", *how])
                self.tell(f"{loss}. {again} ({restarts} of {self.max_restarts}).")
                command = self.program.again
                self._pause(pause_s)
            return 128 + self._signal

    def _run_job(self, command: Sequence[str], hosts: Sequence[Host]) -> JobEnd:
        self._job = Job(self.mpirun.starting(command, self._num_ranks(hosts), hosts), self.start_timeout_s)
        if self._signal:  # it came before there was a job
            self._job.signal(self._signal)
        try:
            return self._job.wait()
        finally:
            self._job = None

    def _num_ranks(self, hosts: Sequence[Host]) -> int:
        return min(self.ranks, sum(host.slots for host in hosts)) if hosts else self.ranks

    def _no_progress(self) -> str:
        if not self.max_restarts:
            return ""
        restarts = "The restart" if self.max_restarts == 1 else f"{self.max_restarts} restarts in a row"
        return f" {restarts} brought no new checkpoint: giving up."

    def _pause(self, pause_s: float) -> None:
        deadline = time.monotonic() + pause_s
        while not self._signal and (left_s := deadline - time.monotonic()) > 0:
            time.sleep(min(left_s, _LOOK_PERIOD_S))

    @contextmanager
    def _passing_signals_on(self) -> Iterator[None]:
        """Pass signals on to the job meanwhile, but for those that are ignored."""
        handlers = {number: handler for number in _SIGNALS if (handler := signal.getsignal(number)) != signal.SIG_IGN}
        for number in handlers:
            signal.signal(number, self._handle)
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._signal = self._signal or number
        if self._job:
            self._job.signal(number)


def _cut_off(names: Sequence[str]) -> str:
    return f"{_named('Host', names)} can't be reached"


def _named(noun: str, names: Sequence[str]) -> str:
    return f"{noun if len(names) == 1 else f'{noun}s'} {', '.join(names)}"

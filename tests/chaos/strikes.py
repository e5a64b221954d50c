"""Who strikes at workers, and in which moment: a thread beside the training, which looks where each of them is."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import final

import dist_relu as dr
from dist_relu.comm import whereabouts
from dist_relu.comm.shared_memory import attach
from dist_relu.errors import BackendError
from dist_relu.runtime.backends import Backend
from dist_relu.runtime.backends.local.supervisor import descendants
from tests.programs import processes_with

PHASES = "pass", "sum", "update", "switch", "evaluation", "checkpoint", "start", "recovery", "any"
"""Moments to strike in: where a worker is in a step, or in a validation; while a checkpoint is written; while workers
start; after another loss, while the group becomes whole; whenever it comes."""

_TIME_TO_SEE_S = 20.0
"""How long a moment is waited for."""
_LONGEST_RECOVERY_S = 60.0

Strike = Callable[[Sequence[int]], object]
"""Strikes at the first of these processes, or at several."""


def kill(pids: Sequence[int]) -> None:
    os.kill(pids[0], signal.SIGKILL)


def kill_two(pids: Sequence[int]) -> None:
    for pid in pids[:2]:
        os.kill(pid, signal.SIGKILL)


def stop(pids: Sequence[int]) -> None:
    os.kill(pids[0], signal.SIGSTOP)


def kill_supervisor(pids: Sequence[int]) -> None:
    """Kill the process that has started this worker of the local backend."""
    os.kill(int(_read(pids[0], "stat").rpartition(")")[2].split()[1]), signal.SIGKILL)


def take_memory(pids: Sequence[int]) -> None:
    """Let the kernel end this process for want of memory when it next asks for some, as in a container."""
    group = _MEMORY_GROUPS / f"dist_relu_chaos_{pids[0]}"
    group.mkdir()
    (group / _MEMORY_LIMIT).write_text("65536")
    (group / "cgroup.procs").write_text(str(pids[0]))


def remove_memory_groups() -> None:
    """Remove what `take_memory` has left, when its processes have ended."""
    for group in _MEMORY_GROUPS.glob("dist_relu_chaos_*"):
        group.rmdir()


def kill_node(pids: Sequence[int]) -> None:
    """Kill the raylet of the second node, with which all of that node goes."""
    for pid in processes_with("DIST_RELU_NODE=node 2\0"):
        if "/raylet/raylet" in _command(pid):
            os.kill(pid, signal.SIGKILL)


_VERSION_1 = Path("/sys/fs/cgroup/memory")
_MEMORY_GROUPS = _VERSION_1 if _VERSION_1.exists() else _VERSION_1.parent
_MEMORY_LIMIT = "memory.limit_in_bytes" if _VERSION_1.exists() else "memory.max"


def can_limit_memory() -> bool:
    """Whether this user may make control groups of memory on this machine."""
    return os.access(_MEMORY_GROUPS, os.W_OK) and (_MEMORY_GROUPS / "cgroup.procs").exists()


def workers_of(backend: str) -> list[int]:
    """The processes that are workers of this backend, or will be."""
    if backend == "local":
        return [pid for pid in descendants() if "local/bootstrap.py" in _command(pid)]
    folder = os.environ["RAY_TMPDIR"]
    return [
        int(process.name)
        for process in Path("/proc").glob("[0-9]*")
        if "DistReluWorker" in _command(int(process.name)) and folder in _environment(int(process.name))
    ]


@final
class Striker(threading.Thread):
    """Strikes in each of these phases, one after the other, while a training goes on.

    `on_settled` makes it a callback of that training.  struck: in which phases it has.
    """

    def __init__(self, backend: Backend, phases: Sequence[str], seed: int, strike: Strike = kill) -> None:
        super().__init__(daemon=True)
        self._backend, self._phases, self._strike = backend, phases, strike
        self._random = random.Random(seed)
        self._checkpoint, self._is_over = threading.Event(), threading.Event()
        self._coordinator: dr.Coordinator | None = None
        self.struck: list[str] = []
        self.start()

    def begin(self, coordinator: dr.Coordinator) -> None:
        """The workers have a coordinator now."""
        self._coordinator = coordinator

    def on_settled(self, trainer: dr.Trainer) -> None:
        """A checkpoint is being written."""
        self._checkpoint.set()

    def end(self) -> None:
        """The training is over."""
        self._is_over.set()
        self.join()

    def run(self) -> None:
        for phase in self._phases:
            while not self._is_over.is_set():
                recovered = self._num_recovered
                with suppress(ProcessLookupError, BackendError, OSError):
                    if victims := self._wait_for(phase):
                        self._strike(victims)
                        self.struck.append(phase)
                        following = self._phases[len(self.struck) : len(self.struck) + 1]
                        if list(following) != ["recovery"]:
                            self._wait(lambda: self._num_recovered > recovered, _LONGEST_RECOVERY_S)  # noqa: B023
                            self._is_over.wait(self._random.uniform(0, 0.2))
                        break
                self._is_over.wait(0.01)

    @property
    def _num_recovered(self) -> int:
        return len(self._coordinator.recoveries) if self._coordinator else 0

    def _wait_for(self, phase: str) -> list[int]:
        """Wait for this moment; returns the processes to strike at, the best one first, or none."""
        match phase:
            case "start" | "any" | "recovery":
                self._is_over.wait(self._random.uniform(0, 0.7))
                return self._shuffled(workers_of(self._backend.name))
            case "checkpoint":
                self._checkpoint.clear()
                self._wait(self._checkpoint.is_set, _TIME_TO_SEE_S)
                return self._shuffled(workers_of(self._backend.name))
        found: list[int] = []
        peers, control = self._backend.peers, attach(self._backend.control)  # type: ignore[arg-type]
        ranks = self._shuffled([*range(len(peers))])

        def look() -> bool:
            for rank in ranks:
                if whereabouts.read(control, rank).name == phase:
                    others = [peers[other].pid for other in ranks if other != rank]
                    found[:] = [peers[rank].pid, *others]
                    return True
            return self._backend.peers is not peers

        self._wait(look, _TIME_TO_SEE_S, pause_s=0)
        return found

    def _wait(self, condition: Callable[[], bool], timeout_s: float, pause_s: float = 0.001) -> None:
        deadline = time.monotonic() + timeout_s
        while not self._is_over.is_set() and not condition() and time.monotonic() < deadline:
            time.sleep(pause_s)

    def _shuffled(self, numbers: list[int]) -> list[int]:
        self._random.shuffle(numbers)
        return numbers


def _command(pid: int) -> str:
    return _read(pid, "cmdline")


def _environment(pid: int) -> str:
    return _read(pid, "environ")


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:
        return ""

"""The worker processes of a local backend, one by one: each may end and be replaced without the others."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, final

from dist_relu.comm.shared_memory import SharedArray
from dist_relu.errors import BackendError
from dist_relu.runtime.backends.local.processes import LocalProcesses, hang_up
from dist_relu.runtime.process_info import ProcessInfo

_TIME_TO_DIE_S = 10.0
_PAUSE_S = 0.002


@final
@dataclass(eq=False)
class Member:
    """A member is a process that is a worker, or will be.

    processes, number: those it was started with, and its number among them.  info: what it has told of itself; None
    while it starts.  loss: how it was lost, for people; None if it was not.
    controls: the control memory of the groups that it was told to join; of those before the last one, whether it has
    looked at them yet is not known before it replies to a task.
    """

    processes: LocalProcesses
    number: int
    info: ProcessInfo | None = None
    loss: str | None = field(default=None, init=False)
    controls: list[SharedArray] = field(default_factory=list, init=False)

    @property
    def connection(self) -> Connection[Any, Any]:
        return self.processes.connections[self.number]

    @property
    def has_ended(self) -> bool:
        """Whether the process has.  Notes it in `loss` when its supervisor has, for then it does so, too."""
        try:
            return self.number in self.processes.ended()
        except BackendError as error:
            self.loss = str(error)
            return True

    def exit_code(self) -> int | None:
        """See `LocalProcesses.exit_code`; None as well when the supervisor has ended."""
        try:
            return self.processes.exit_code(self.number)
        except BackendError as error:
            self.loss = str(error)
            return None

    @property
    def pid(self) -> int | None:
        """The process's number; None as long as the supervisor has not said yet which it is."""
        return self.processes.pids.get(self.number)

    @property
    def was_killed(self) -> bool:
        """Whether it was a signal that has ended it or its supervisor, so that another one may well start."""
        code = self.exit_code()
        return (self.processes.supervisor_code if code is None else code) < 0

    def hang_up(self) -> None:
        """Let the process end as a Python program does, when it has done what it does."""
        hang_up(self.connection.fileno())

    def kill(self) -> None:
        """Kill the process, whatever it does, and wait until it is gone."""
        deadline = time.monotonic() + _TIME_TO_DIE_S
        while not self.has_ended and time.monotonic() < deadline:
            if self.pid is not None:
                with suppress(ProcessLookupError):
                    _kill(self.pid, self)
            time.sleep(_PAUSE_S)


def _kill(pid: int, member: Member) -> None:
    process = os.pidfd_open(pid)
    try:
        if not member.has_ended:  # so this is it, and not another one with its number
            signal.pidfd_send_signal(process, signal.SIGKILL)
    finally:
        os.close(process)


def start_members(number: int, threads: int) -> list[Member]:
    """Start so many processes, with a supervisor of their own."""
    processes = LocalProcesses(number, threads)
    return [Member(processes, i) for i in range(number)]


def groups_of(members: Sequence[Member]) -> list[LocalProcesses]:
    """The processes that members were started with, each once."""
    return list({id(member.processes): member.processes for member in members}.values())

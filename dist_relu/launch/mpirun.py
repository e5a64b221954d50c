"""An mpirun, as MPICH or Open MPI have it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self, final

from dist_relu.errors import UnsuitableBackend
from dist_relu.launch.hosts import Host
from dist_relu.runtime.backends.mpi import rank_guard

_VERSION_TIMEOUT_S = 30.0


@final
@dataclass(frozen=True)
class Mpirun:
    """A program that starts MPI jobs.  command: with the options that it always gets."""

    command: tuple[str, ...]
    is_open_mpi: bool

    @classmethod
    def of(cls, command: Sequence[str]) -> Self:
        """Ask a program what kind of mpirun it is.  Raises `UnsuitableBackend` when it can't be run."""
        try:
            asked = subprocess.run(
                [*command, "--version"],
                capture_output=True,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                timeout=_VERSION_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UnsuitableBackend(f"{command[0]} can't be run ({error}). Name an mpirun with --mpirun.") from None
        return cls(tuple(command), any(name in asked.stdout for name in ("Open MPI", "OpenRTE", "PRRTE")))

    def starting(self, program: Sequence[str], ranks: int, hosts: Sequence[Host]) -> list[str]:
        """Return the command that runs a program on so many ranks, each with a guard; hosts: none for this machine."""
        guarded = [sys.executable, "-I", "-S", rank_guard.__file__, *program]
        variables: list[str] = []
        if self.is_open_mpi:  # MPICH passes all of them on
            variables = ["-x", rank_guard.VARIABLE, "-x", rank_guard.LIMIT_VARIABLE]
        return [*self.command, *self._placement(hosts), *variables, "-n", str(ranks), *guarded]

    def reached(self, hosts: Sequence[Host], timeout_s: float) -> list[Host]:
        """Return those of the hosts on which a rank can be started within `timeout_s`."""
        if not hosts:
            return []
        with ThreadPoolExecutor(len(hosts)) as pool:
            answers = pool.map(lambda host: self._reaches(host, timeout_s), hosts)
            return [host for host, answered in zip(hosts, answers, strict=True) if answered]

    def _reaches(self, host: Host, timeout_s: float) -> bool:
        command = [
            *self.command,
            *self._placement([Host(host.name, 1)]),
            "-n",
            "1",
            sys.executable,
            "-I",
            "-S",
            "-c",
            "",
        ]
        nothing = subprocess.DEVNULL
        try:
            done = subprocess.run(
                command,
                stdin=nothing,
                stdout=nothing,
                stderr=nothing,
                timeout=timeout_s,
                start_new_session=True,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    def _placement(self, hosts: Sequence[Host]) -> list[str]:
        return ["--host" if self.is_open_mpi else "-hosts", ",".join(map(str, hosts))] if hosts else []

"""What the program that started this process says about it: which rank it is, and of how many.

Launchers tell it by environment variables, which outlive them: in shells that a rank started, in terminals, in files of
settings. So variables alone make no rank; what the launcher keeps open for its ranks does. PMI's launchers (MPICH's and
Intel's Hydra, Slurm) leave an open socket, those of PMIx (Open MPI's prterun, Slurm) the folder of a running server.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from dist_relu.errors import BackendError

_PID = os.getpid()
_SIZE_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")


@dataclass(frozen=True)
class Launched:
    """A process that a launcher started as one of several ranks, and that this launcher still looks after.

    variable: the one that says which rank it is.  size: the number of ranks, if the launcher tells.  num_local: the
    number of those on this node, if it tells.  pmi: the descriptor of the socket to a launcher that speaks PMI.
    """

    variable: str
    rank: int
    size: int | None
    num_local: int | None
    pmi: int | None

    @property
    def is_alone(self) -> bool:
        return self.size == 1

    @property
    def is_on_one_node(self) -> bool:
        return self.size is not None and self.size == self.num_local


def launched() -> Launched | None:
    """Read what the launcher says of this process; None if there is no launcher."""
    if os.getpid() != _PID:
        return None  # a forked child has all that a rank has, but the rank is its parent
    if (rank := _number("PMI_RANK")) is not None and ("PMI_PORT" in os.environ or _pmi_socket() is not None):
        return Launched("PMI_RANK", rank, _number("PMI_SIZE"), _number("MPI_LOCALNRANKS"), _pmi_socket())
    if (rank := _number("PMIX_RANK")) is not None and _has_pmix_server():
        size = _number("OMPI_COMM_WORLD_SIZE") or _number("SLURM_STEP_NUM_TASKS") or _number("SLURM_NTASKS")
        if size == 1 and "SLURM_JOB_ID" in os.environ and "OMPI_COMM_WORLD_SIZE" not in os.environ:
            return None  # srun --pty bash, with PMIx: nobody meant to start ranks
        return Launched("PMIX_RANK", rank, size, _number("OMPI_COMM_WORLD_LOCAL_SIZE"), None)
    return None


def sizes_in_environment() -> dict[str, int]:
    """Read how many ranks there are, by each variable that says so; some may be left over from another launcher."""
    return {name: size for name in _SIZE_VARIABLES if (size := _number(name)) is not None}


def check_not_alone(size: int, library: str) -> None:
    """Raise `BackendError` when MPI finds this process alone, and every variable says that it is not.

    size: of COMM_WORLD.  library: its name, for people.
    """
    sizes = sizes_in_environment()
    if size == 1 and sizes and 1 not in sizes.values():
        said = " and ".join(f"{name}={number}" for name, number in sizes.items())
        raise BackendError(
            f"{said} in the environment: this process is one of several ranks. But MPI ({library}) finds no other. "
            "If mpirun or srun started it, that belongs to another MPI library than the one that mpi4py found: use the "
            f"mpirun of {library}. If not, the variable is left over from another program: unset it."
        )


def _number(variable: str) -> int | None:
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() else None


def _pmi_socket() -> int | None:
    """Return the descriptor that PMI_FD names, if it is open and a socket."""
    descriptor = _number("PMI_FD")
    try:
        return descriptor if descriptor is not None and stat.S_ISSOCK(os.fstat(descriptor).st_mode) else None
    except OSError:
        return None


def _has_pmix_server() -> bool:
    """Tell whether there is a server of PMIx: it has a folder for its files, which it removes when it ends."""
    has_address = any(name.startswith("PMIX_SERVER_URI") for name in os.environ)
    folder = os.environ.get("PMIX_SERVER_TMPDIR", "")
    return has_address and bool(folder) and Path(folder).is_dir()

"""How workers start and how calls travel to them: one file for each backend."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from dist_relu.core.checks import check_bool, check_int, check_is, instance_of, optional
from dist_relu.errors import UnsuitableBackend
from dist_relu.runtime.backends.base import Backend
from dist_relu.runtime.backends.local.backend import LocalBackend
from dist_relu.runtime.backends.mpi.backend import MpiBackend
from dist_relu.runtime.backends.mpi.job import join
from dist_relu.runtime.backends.mpi.launcher import launched, told_sizes
from dist_relu.runtime.backends.mpi.membership import take_part
from dist_relu.runtime.backends.ray.backend import RayBackend
from dist_relu.runtime.backends.serial import SerialBackend

__all__ = ["BACKENDS", "Backend", "connect", "is_under_mpirun", "serve_if_rank"]

BACKENDS: dict[str, Callable[[int | None, int], Backend]] = {
    "serial": SerialBackend,
    "local": LocalBackend,
    "mpi": MpiBackend,
    "ray": RayBackend,
}


def connect(
    name: str, workers: int | None, threads_per_worker: int, *, address: str | None = None, spread: bool = False
) -> Backend:
    """Start the backend called `name`, or the one that fits this process: `mpi` under mpirun, otherwise `local`.

    address, spread: see `RayBackend`; for that backend alone.
    """
    check_is("backend", name, str)
    if name == "auto":
        name = "mpi" if is_under_mpirun() else "local"
        if name == "local":
            _warn_of_leftovers()
    if name not in BACKENDS:
        raise ValueError(f"backend={name!r} is unknown. Choose one of: auto, {', '.join(BACKENDS)}.")
    num_workers = None if workers is None else check_int("workers", workers)
    threads = check_int("threads_per_worker", threads_per_worker)
    optional(instance_of(str))("address", address)
    spread = check_bool("spread", spread)
    if name == "ray":
        return RayBackend(num_workers, threads, address, spread=spread)
    if address is not None:
        raise UnsuitableBackend(f'address={address!r} is that of a Ray cluster; with backend="{name}" there is none.')
    if spread:
        raise UnsuitableBackend(f'spread=True is for the nodes of a Ray cluster; with backend="{name}" there is none.')
    return BACKENDS[name](num_workers, threads)


def serve_if_rank() -> None:
    """Under mpirun, serve on the ranks that don't run the script, and never return there.

    For programs that speak to the user before they start workers.
    """
    told = launched()
    if told and not told.is_alone:
        join()


def is_under_mpirun() -> bool:
    """Whether this process is a rank of an MPI job, and its launcher is there."""
    return launched() is not None


def _warn_of_leftovers() -> None:
    """If this process should be a rank after all, all ranks would do the same work, and nobody would see why."""
    said = [f"{name}={size}" for name, size in told_sizes().items() if size > 1]
    if said:
        warnings.warn(
            f"{' and '.join(said)} in the environment: this process is one of several ranks of an MPI job. But the "
            'program that started it has left no connection (PMI_FD, PMIX_SERVER_URI), so backend="auto" starts local '
            'workers. If it is a rank, pass backend="mpi"; if not, unset the variable.',
            RuntimeWarning,
            stacklevel=4,
        )


if (_told := launched()) and not _told.is_alone:
    take_part()

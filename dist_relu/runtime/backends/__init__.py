"""How workers start and how tasks travel to them: a module or a package for each backend."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from dist_relu.comm.stop_detector import WORKER_TIMEOUT_S
from dist_relu.core.checks import check_bool, check_int, check_positive, instance_of, optional, shown
from dist_relu.errors import UnsuitableBackend
from dist_relu.runtime.backends.base import Backend
from dist_relu.runtime.backends.local.backend import LocalBackend
from dist_relu.runtime.backends.mpi.backend import MpiBackend
from dist_relu.runtime.backends.mpi.job import join
from dist_relu.runtime.backends.mpi.launcher import launched, sizes_in_environment
from dist_relu.runtime.backends.mpi.membership import take_part
from dist_relu.runtime.backends.ray.backend import RayBackend
from dist_relu.runtime.backends.serial import SerialBackend

__all__ = [
    "BACKENDS",
    "Backend",
    "LocalBackend",
    "MpiBackend",
    "RayBackend",
    "SerialBackend",
    "is_under_mpirun",
    "serve_if_rank",
    "start_backend",
]

BACKENDS: dict[str, Callable[[int | None, int], Backend]] = {
    "serial": SerialBackend,
    "local": LocalBackend,
    "mpi": MpiBackend,
    "ray": RayBackend,
}
"""By name; each takes the number of workers, None for as many as fit, and the number of threads of each."""


def start_backend(
    backend: Backend | str,
    workers: int | None,
    threads_per_worker: int,
    *,
    address: str | None = None,
    nodes: int | None = None,
    spread: bool = False,
    worker_timeout_s: float | None = None,
) -> Backend:
    """Start the backend of this name, or take one that was started.

    For "auto" it is the one that fits this process: `mpi` under mpirun, otherwise `local`.
    address, nodes, spread: see `RayBackend`; for that backend alone.  worker_timeout_s: for those whose workers are
    processes of their own.
    Raises TypeError and ValueError for what is neither a backend nor the name of one.
    """
    if isinstance(backend, Backend):
        passed: dict[str, object] = {
            "workers": workers,
            "threads_per_worker": threads_per_worker,
            "address": address,
            "nodes": nodes,
            "spread": spread,
        }
        passed["worker_timeout_s"] = worker_timeout_s
        for name, value in passed.items():
            if value != {"threads_per_worker": 1, "spread": False}.get(name):
                raise ValueError(f"{name}={value!r}, but this {type(backend).__name__} has its workers already.")
        return backend
    names = ", ".join(["auto", *BACKENDS])
    if not isinstance(backend, str):
        raise TypeError(f"{shown('backend', backend)}: expected a Backend, or one of the names {names}.")
    name = backend
    if name == "auto":
        name = "mpi" if is_under_mpirun() else "local"
        if name == "local":
            _warn_of_leftovers()
    if name not in BACKENDS:
        raise ValueError(f"backend={name!r} is unknown. Choose one of: {names}.")
    timeout_s = WORKER_TIMEOUT_S if worker_timeout_s is None else check_positive("worker_timeout_s", worker_timeout_s)
    if name == "ray":
        return RayBackend(workers, threads_per_worker, address, nodes=nodes, spread=spread, worker_timeout_s=timeout_s)
    _check_no_cluster(name, address, nodes, spread=spread)
    if name == "local":
        return LocalBackend(workers, threads_per_worker, worker_timeout_s=timeout_s)
    if worker_timeout_s is not None:
        raise UnsuitableBackend(f'worker_timeout_s={worker_timeout_s}, but backend="{name}" can\'t replace workers.')
    return BACKENDS[name](workers, threads_per_worker)


def serve_if_rank() -> None:
    """Under mpirun, serve on the ranks that don't run the script, and never return there.

    For programs that speak to the user before they start workers.
    """
    launch = launched()
    if launch and not launch.is_alone:
        join()


def is_under_mpirun() -> bool:
    """Tell whether this process is a rank of an MPI job, and its launcher is there."""
    return launched() is not None


def _check_no_cluster(name: str, address: str | None, nodes: int | None, *, spread: bool) -> None:
    """Refuse what is for Ray clusters alone.  Raises TypeError and ValueError, `UnsuitableBackend` among these."""
    if optional(instance_of(str))("address", address) is not None:
        raise UnsuitableBackend(f'address={address!r} is that of a Ray cluster; with backend="{name}" there is none.')
    if optional(check_int)("nodes", nodes) is not None:
        raise UnsuitableBackend(f'nodes={nodes} is for a Ray cluster; with backend="{name}" there is none.')
    if check_bool("spread", spread):
        raise UnsuitableBackend(f'spread=True is for the nodes of a Ray cluster; with backend="{name}" there is none.')


def _warn_of_leftovers() -> None:
    """Warn, since ranks that are not known as such would all do the same work, and nobody would see why."""
    said = [f"{name}={size}" for name, size in sizes_in_environment().items() if size > 1]
    if said:
        warnings.warn(
            f"{' and '.join(said)} in the environment: this process is one of several ranks of an MPI job. But the "
            'program that started it has left no connection (PMI_FD, PMIX_SERVER_URI), so backend="auto" starts local '
            'workers. If it is a rank, pass backend="mpi"; if not, unset the variable.',
            RuntimeWarning,
            stacklevel=4,
        )


if (_launch := launched()) and not _launch.is_alone:
    take_part()

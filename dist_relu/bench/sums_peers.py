"""What can add up arrays in the workers' own processes: MPI_Allreduce, and Gloo as PyTorch has it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from time import perf_counter

import numpy as np

from dist_relu.coordinator import Coordinator
from dist_relu.core.interfaces import addresses_by_interface
from dist_relu.runtime.world import World

Peer = Callable[[int, int], list[float]]
"""(size_bytes, repeats): the seconds of so many sums of float32 over all workers, which it checks."""


@contextmanager
def in_workers(coordinator: Coordinator) -> Iterator[dict[str, Peer]]:
    """What there is for these workers: MPI for ranks of a job, Gloo where PyTorch is installed."""

    def mpi(size_bytes: int, repeats: int) -> list[float]:
        return slowest(coordinator.run(time_mpi, (size_bytes, repeats)))

    def gloo(size_bytes: int, repeats: int) -> list[float]:
        return slowest(coordinator.run(time_gloo, (size_bytes, repeats)))

    peers: dict[str, Peer] = {}
    if coordinator.backend == "mpi":
        algorithm = os.environ.get("MPIR_CVAR_ALLREDUCE_INTRA_ALGORITHM")  # as MPICH was told
        peers["MPI_Allreduce" + (f" ({algorithm})" if algorithm else "")] = mpi
    if coordinator.backend == "ray" or find_spec("torch") is None:  # Ray's collectives have Gloo themselves
        yield peers
        return
    (meeting_point, *_) = coordinator.run(_free_address, None)
    coordinator.run(_join_gloo, meeting_point)
    try:
        yield peers | {"gloo": gloo}
    finally:
        coordinator.run(_leave_gloo, None)


def time_mpi(world: World, request: tuple[int, int]) -> list[float]:
    """Seconds of each repetition.  request: bytes, repetitions.  Collective."""
    from mpi4py import MPI

    size_bytes, repeats = request
    comm = MPI.COMM_WORLD.Create_group(MPI.COMM_WORLD.group.Incl(range(world.size)))  # workers are the first ranks
    mine, total = np.full(size_bytes // 4, world.rank + 1, np.float32), np.empty(size_bytes // 4, np.float32)
    seconds = time_sums(lambda: comm.Allreduce(mine, total), world.barrier.wait, repeats)
    comm.Free()
    assert (total == world.size * (world.size + 1) / 2).all()
    return seconds


def time_gloo(world: World, request: tuple[int, int]) -> list[float]:
    """Seconds of each repetition.  request: bytes, repetitions.  Collective."""
    import torch
    from torch import distributed

    size_bytes, repeats = request
    array = torch.empty(size_bytes // 4)

    def meet() -> None:
        array.fill_(world.rank + 1)  # it adds in place
        world.barrier.wait()

    seconds = time_sums(lambda: distributed.all_reduce(array), meet, repeats)
    assert bool((array == world.size * (world.size + 1) / 2).all())
    return seconds


def _free_address(world: World, request: None) -> tuple[str, int]:
    """Name a place where all other workers can reach this one: on one node the loopback address."""
    _, address = _interface(world)
    with socket.create_server((address, 0)) as server:
        return address, server.getsockname()[1]


def _join_gloo(world: World, meeting_point: tuple[str, int]) -> None:
    from torch import distributed

    os.environ.setdefault("GLOO_SOCKET_IFNAME", _interface(world)[0])
    address, port = meeting_point
    place = f"tcp://{address}:{port}"
    distributed.init_process_group("gloo", init_method=place, rank=world.rank, world_size=world.size)


def _leave_gloo(world: World, request: None) -> None:
    from torch import distributed

    distributed.destroy_process_group()


def _interface(world: World) -> tuple[str, str]:
    """Return the name and the address of an interface that leads to all workers."""
    first, *_, last = [*addresses_by_interface().items()] * 2
    return first if len(world.nodes) > 1 else last


def time_sums(add: Callable[[], object], meet: Callable[[], object], repeats: int) -> list[float]:
    """Seconds of each repetition after a first one, with a meeting before each."""
    seconds = []
    for _ in range(1 + repeats):
        meet()
        begin = perf_counter()
        add()
        seconds.append(perf_counter() - begin)
    return seconds[1:]


def slowest(replies: list[list[float]]) -> list[float]:
    """A repetition takes as long as its slowest worker."""
    return [max(seconds) for seconds in zip(*replies, strict=True)]

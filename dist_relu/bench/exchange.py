"""The sum over the workers of several nodes beside what else there is to do it with, by turns."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from dist_relu.bench.summation import Summation, SumMemory, SumRequest
from dist_relu.coordinator import Coordinator
from dist_relu.runtime.world import World

ROUNDS = 3
SIZES_BYTES = [4_000, 40_000, 400_000, 4_000_000, 40_000_000]

Peer = Callable[[int, int], list[float]]
"""(size_bytes, repeats): the seconds of so many sums of float32 over all workers, which it checks."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Median times of a sum of `size_bytes` of float32 over all workers; those of others by name."""

    nodes: int
    workers: int
    size_bytes: int
    ours_ms: float
    peers_ms: dict[str, float]


def mpi_peers(coordinator: Coordinator) -> dict[str, Peer]:
    """MPI_Allreduce, for the ranks of this MPI job."""
    algorithm = os.environ.get("MPIR_CVAR_ALLREDUCE_INTRA_ALGORITHM", "auto")  # as MPICH was told

    def all_reduce(size_bytes: int, repeats: int) -> list[float]:
        return _slowest(coordinator.run(time_mpi, (size_bytes, repeats)))

    return {f"MPI_Allreduce ({algorithm})": all_reduce}


def run(coordinator: Coordinator, peers: Mapping[str, Peer]) -> list[Timing]:
    """Time all sizes; the workers must run on several nodes."""
    timings = []
    for size_bytes in SIZES_BYTES:
        memory = SumMemory(coordinator.replicas, size_bytes // 4)
        repeats = int(np.clip(2e7 / size_bytes, 3, 100))
        ours_s: list[float] = []
        peers_s: dict[str, list[float]] = {name: [] for name in peers}
        for _ in range(ROUNDS):
            ours_s += _slowest(coordinator.run(time_ours, memory.request(repeats)))
            for name, peer in peers.items():
                peers_s[name] += peer(size_bytes, repeats)
        peers_ms = {name: float(np.median(seconds)) * 1e3 for name, seconds in peers_s.items()}
        ours_ms = float(np.median(ours_s)) * 1e3
        timings.append(
            Timing(
                nodes=coordinator.nodes,
                workers=coordinator.workers,
                size_bytes=size_bytes,
                ours_ms=ours_ms,
                peers_ms=peers_ms,
            )
        )
    return timings


def time_ours(world: World, request: SumRequest) -> list[float]:
    """Seconds of each repetition.  Collective."""
    add = Summation(world, request)
    add.mine[:] = world.rank + 1
    seconds = time_sums(add, world.barrier.wait, request.repeats)
    assert (add.total == world.size * (world.size + 1) / 2).all()
    return seconds


def time_mpi(world: World, request: tuple[int, int]) -> list[float]:
    """Seconds of each repetition.  request: bytes, repetitions.  Collective."""
    from mpi4py import MPI

    size_bytes, repeats = request
    comm = MPI.COMM_WORLD
    mine, total = np.full(size_bytes // 4, world.rank + 1, np.float32), np.empty(size_bytes // 4, np.float32)
    seconds = time_sums(lambda: comm.Allreduce(mine, total), comm.Barrier, repeats)
    assert (total == world.size * (world.size + 1) / 2).all()
    return seconds


def time_sums(add: Callable[[], object], meet: Callable[[], object], repeats: int) -> list[float]:
    """Seconds of each repetition after a first one, with a meeting before each."""
    seconds = []
    for _ in range(1 + repeats):
        meet()
        begin = perf_counter()
        add()
        seconds.append(perf_counter() - begin)
    return seconds[1:]


def _slowest(replies: list[list[float]]) -> list[float]:
    """A repetition takes as long as its slowest worker."""
    return [max(seconds) for seconds in zip(*replies, strict=True)]

"""The sum over the workers of several nodes beside what else there is to do it with, by turns."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import final

import numpy as np

from dist_relu.comm.exchange import Exchange, OrderedSum, assign_buckets, num_buckets
from dist_relu.comm.shared_memory import Handles
from dist_relu.coordinator import Coordinator
from dist_relu.core.arrays import Array
from dist_relu.kernels.ordered_sum import ordered_sum
from dist_relu.partition import SummationTree, bounds
from dist_relu.reduction.sources import SlotSource
from dist_relu.runtime.world import World

ROUNDS = 3
SIZES_BYTES = [4_000, 40_000, 400_000, 4_000_000, 40_000_000]

Peer = Callable[[int, int], list[float]]
"""(size_bytes, repeats): the seconds of so many sums of float32 over all workers, which it checks."""


@dataclass(frozen=True)
class Timing:
    """Median times of a sum of `size_bytes` of float32 over all workers; those of others by name."""

    nodes: int
    workers: int
    size_bytes: int
    ours_ms: float
    peers_ms: dict[str, float]


@dataclass(frozen=True)
class Request:
    """slots: (ranks, n), sums: (n,), both on every node."""

    slots: Handles
    sums: Handles
    repeats: int


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
        slots = coordinator.replicas.zeros((coordinator.workers, size_bytes // 4), np.float32)
        sums = coordinator.replicas.zeros((size_bytes // 4,), np.float32)
        repeats = int(np.clip(2e7 / size_bytes, 3, 100))
        request = Request(slots.handles, sums.handles, repeats)
        ours_s: list[float] = []
        peers_s: dict[str, list[float]] = {name: [] for name in peers}
        for _ in range(ROUNDS):
            ours_s += _slowest(coordinator.run(time_ours, request))
            for name, peer in peers.items():
                peers_s[name] += peer(size_bytes, repeats)
        peers_ms = {name: float(np.median(seconds)) * 1e3 for name, seconds in peers_s.items()}
        ours_ms = float(np.median(ours_s)) * 1e3
        timings.append(Timing(coordinator.nodes, coordinator.workers, size_bytes, ours_ms, peers_ms))
    return timings


def time_ours(world: World, request: Request) -> list[float]:
    """Seconds of each repetition.  Collective."""
    slots, sums = world.node.attach(request.slots), world.node.attach(request.sums)
    slots[world.rank] = world.rank + 1
    add = _Sum(world, slots, sums)
    seconds = time_sums(add, world.barrier.wait, request.repeats)
    assert (sums == world.size * (world.size + 1) / 2).all()
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


@final
class _Sum:
    """Adds the rows of `slots` into `sums` on every node, as training does without a model."""

    def __init__(self, world: World, slots: Array, sums: Array) -> None:
        assert world.progress_engine is not None
        cuts = bounds(len(sums), num_buckets(sums.nbytes, len(world.nodes)))
        buckets = assign_buckets(cuts, [stop - start for start, stop in cuts], world.nodes)
        tree = SummationTree(world.size)
        folds = [tree.fold(tree.leaves(ranks.start, ranks.stop)) for ranks in world.nodes]
        carries, _ = tree.fold([node for _, nodes in folds for node in nodes])
        self._mine = [bucket for bucket in buckets if world.rank in bucket.ranks]
        num_rows = [len(nodes) for _, nodes in folds]
        self._exchange = Exchange(
            world.progress_engine, world.node.number, self._mine, num_rows, OrderedSum(carries, sums.dtype), sums
        )
        self._sources = []
        for bucket in self._mine:
            for node in folds[world.node.number][1]:
                shards = tree.shards_of(node)
                among, _ = tree.fold(tree.leaves(shards.start, shards.stop))
                self._sources.append(SlotSource(slots[shards.start : shards.stop], bucket.start, among))
        self._barrier = world.node.barrier

    def __call__(self) -> None:
        self._exchange.begin()
        self._barrier.wait()
        sources = iter(self._sources)
        for bucket in self._mine:
            for row in self._exchange.rows(bucket):
                ordered_sum(*next(sources).partial_sums([]), row)
            self._exchange.leave(bucket)
        self._exchange.wait()
        self._barrier.wait()

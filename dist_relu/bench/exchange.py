"""The sum over the workers of several nodes beside MPI_Allreduce, in the same processes and by turns."""

from __future__ import annotations

import os
from dataclasses import dataclass
from time import perf_counter
from typing import final

import numpy as np

from dist_relu.arrays import Array
from dist_relu.collectives.exchange import Bucket, Exchange
from dist_relu.collectives.gradients import SlotSource
from dist_relu.collectives.memory import Handles
from dist_relu.coordinator import Coordinator
from dist_relu.kernels.update import ordered_sum
from dist_relu.partition import SummationTree, bounds
from dist_relu.worker import World

ROUNDS = 3
SIZES_BYTES = [4_000, 40_000, 400_000, 4_000_000, 40_000_000]
_BUCKET_BYTES = 256 * 1024


@dataclass(frozen=True)
class Timing:
    """Median times of a sum of `size_bytes` of float32 over all ranks."""

    nodes: int
    ranks: int
    size_bytes: int
    ours_ms: float
    mpi_ms: float


@dataclass(frozen=True)
class Request:
    """slots: (ranks, n), sums: (n,), both on every node."""

    slots: Handles
    sums: Handles
    repeats: int  # in each round


def mpi_algorithm() -> str:
    """What MPICH was told to do in its MPI_Allreduce."""
    return os.environ.get("MPIR_CVAR_ALLREDUCE_INTRA_ALGORITHM", "auto")


def run(coordinator: Coordinator) -> list[Timing]:
    """Time all sizes on the ranks of this MPI job, which must run on several nodes."""
    timings = []
    for size_bytes in SIZES_BYTES:
        slots = coordinator.replicas.zeros((coordinator.workers, size_bytes // 4), np.float32)
        sums = coordinator.replicas.zeros((size_bytes // 4,), np.float32)
        repeats = int(np.clip(2e7 / size_bytes, 3, 100))
        replies = coordinator.run(time_sums, Request(slots.handles, sums.handles, repeats))
        # A repetition takes as long as its slowest rank.
        ours_ms, mpi_ms = np.median(np.max(replies, axis=0), axis=1) * 1e3
        timings.append(Timing(coordinator.nodes, coordinator.workers, size_bytes, float(ours_ms), float(mpi_ms)))
    return timings


def time_sums(world: World, request: Request) -> tuple[list[float], list[float]]:
    """Seconds of each repetition, ours and MPI's.  Collective; both sums are checked."""
    from mpi4py import MPI

    slots, sums = world.node.attach(request.slots), world.node.attach(request.sums)
    slots[world.rank] = world.rank + 1
    mine, theirs = slots[world.rank].copy(), np.empty_like(sums)
    comm = MPI.COMM_WORLD
    ours = _Sum(world, slots, sums)
    ours_s, mpi_s = [], []
    for _ in range(ROUNDS):
        for _ in range(request.repeats):
            comm.Barrier()
            begin = perf_counter()
            ours()
            ours_s.append(perf_counter() - begin)
        for _ in range(request.repeats):
            comm.Barrier()
            begin = perf_counter()
            comm.Allreduce(mine, theirs)
            mpi_s.append(perf_counter() - begin)
    assert (sums == theirs).all()
    return ours_s, mpi_s


@final
class _Sum:
    """Adds the rows of `slots` into `sums` on every node, as training does without a model."""

    def __init__(self, world: World, slots: Array, sums: Array) -> None:
        assert world.courier is not None
        num_buckets = len(world.nodes) * max(round(sums.nbytes / len(world.nodes) / _BUCKET_BYTES), 1)
        buckets = [
            Bucket(i, start, stop, i % len(world.nodes), [ranks[i % len(ranks)] for ranks in world.nodes])
            for i, (start, stop) in enumerate(bounds(len(sums), num_buckets))
        ]
        tree = SummationTree(world.size)
        folds = [tree.fold(tree.leaves(ranks.start, ranks.stop)) for ranks in world.nodes]
        carries, _ = tree.fold([node for _, nodes in folds for node in nodes])
        self._mine = [bucket for bucket in buckets if world.rank in bucket.ranks]
        num_rows = [len(nodes) for _, nodes in folds]
        self._exchange = Exchange(world.courier, world.node.number, self._mine, num_rows, carries, sums)
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

"""The node's all-reduce beside MPI_Allreduce, in the same processes and by turns."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from time import perf_counter

import numpy as np

from dist_relu.bench.node_all_reduce import AllReduce
from dist_relu.comm.shared_memory import Handle, SharedArray, attach
from dist_relu.coordinator import start
from dist_relu.errors import BackendError
from dist_relu.runtime.backends.mpi.backend import mpirun_path
from dist_relu.runtime.world import World

ROUNDS = 5
SIZES_BYTES = [4_000, 40_000, 400_000, 4_000_000, 40_000_000]


@dataclass(frozen=True)
class Timing:
    """Median times of a sum of `size_bytes` of float32 over all processes."""

    processes: int
    size_bytes: int
    ours_ms: float
    mpi_ms: float


@dataclass(frozen=True)
class Request:
    """slots: (ranks, n), total: (n,), both shared."""

    slots: Handle
    total: Handle
    repeats: int  # in each round


def run(processes: int) -> list[Timing]:
    """Start an MPI job of `processes` ranks, and time all sizes in it."""
    command = [mpirun_path(), "-n", str(processes), sys.executable, "-m", "dist_relu.bench.allreduce"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BackendError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return [Timing(**row) for row in json.loads(done.stdout)]


def time_sums(world: World, request: Request) -> tuple[list[float], list[float]]:
    """Seconds of each repetition, ours and MPI's.  Collective.

    The arrays to be added lie where each side wants them: in the slots, as backward leaves them, and in private
    buffers. Turns are several repetitions long, so that each side finds its own arrays in the cache, as a training
    step does. Both sums are checked.
    """
    from mpi4py import MPI

    slots, total = attach(request.slots), attach(request.total)
    slots[world.rank] = world.rank + 1
    mine, theirs = slots[world.rank].copy(), np.empty_like(total)
    comm = MPI.COMM_WORLD
    all_reduce = AllReduce(slots, total, world.rank, world.barrier)
    ours_s, mpi_s = [], []
    for _ in range(ROUNDS):
        for _ in range(request.repeats):
            world.barrier.wait()
            begin = perf_counter()
            all_reduce()
            ours_s.append(perf_counter() - begin)
        for _ in range(request.repeats):
            comm.Barrier()
            begin = perf_counter()
            comm.Allreduce(mine, theirs)
            mpi_s.append(perf_counter() - begin)
    assert (total == theirs).all()
    return ours_s, mpi_s


def _main() -> None:
    with start(backend="mpi") as coordinator:
        timings = []
        for size_bytes in SIZES_BYTES:
            slots = SharedArray((coordinator.workers, size_bytes // 4), np.float32)
            total = SharedArray((size_bytes // 4,), np.float32)
            repeats = int(np.clip(1e8 / size_bytes, 10, 300))
            replies = coordinator.run(time_sums, Request(slots.handle, total.handle, repeats))
            # A repetition takes as long as its slowest rank.
            ours_ms, mpi_ms = np.median(np.max(replies, axis=0), axis=1) * 1e3
            timings.append(Timing(coordinator.workers, size_bytes, float(ours_ms), float(mpi_ms)))
        sys.stdout.write(json.dumps([asdict(timing) for timing in timings]))


if __name__ == "__main__":
    _main()

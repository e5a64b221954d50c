"""The sum over the workers of a node beside MPI_Allreduce, in the same processes and by turns."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from time import perf_counter

import numpy as np

from dist_relu.bench.summation import Summation, SumMemory, SumRequest
from dist_relu.coordinator import start
from dist_relu.errors import BackendError
from dist_relu.runtime.backends.mpi.backend import mpirun_path
from dist_relu.runtime.world import World

ROUNDS = 5
SIZES_BYTES = [4_000, 40_000, 400_000, 4_000_000, 40_000_000]


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Median times of a sum of `size_bytes` of float32 over all processes."""

    processes: int
    size_bytes: int
    ours_ms: float
    mpi_ms: float


def run(processes: int) -> list[Timing]:
    """Start an MPI job of `processes` ranks, and time all sizes in it."""
    command = [mpirun_path(), "-n", str(processes), sys.executable, "-m", "dist_relu.bench.allreduce"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BackendError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return [Timing(**row) for row in json.loads(done.stdout)]


def time_sums(world: World, request: SumRequest) -> tuple[list[float], list[float]]:
    """Seconds of each repetition, ours and MPI's.  Collective.

    The arrays to be added lie where each side wants them: in the slots, as backward leaves them, and in private
    buffers. Turns are several repetitions long, so that each side finds its own arrays in the cache, as a training
    step does. Both sums are checked.
    """
    from mpi4py import MPI

    add = Summation(world, request)
    add.mine[:] = world.rank + 1
    mine, theirs = add.mine.copy(), np.empty_like(add.total)
    comm = MPI.COMM_WORLD
    ours_s, mpi_s = [], []
    for _ in range(ROUNDS):
        for _ in range(request.repeats):
            world.barrier.wait()
            begin = perf_counter()
            add()
            ours_s.append(perf_counter() - begin)
        for _ in range(request.repeats):
            comm.Barrier()
            begin = perf_counter()
            comm.Allreduce(mine, theirs)
            mpi_s.append(perf_counter() - begin)
    assert (add.total == theirs).all()
    return ours_s, mpi_s


def _main() -> None:
    with start(backend="mpi") as coordinator:
        timings = []
        for size_bytes in SIZES_BYTES:
            memory = SumMemory(coordinator.replicas, size_bytes // 4)
            repeats = int(np.clip(1e8 / size_bytes, 10, 300))
            replies = coordinator.run(time_sums, memory.request(repeats))
            # A repetition takes as long as its slowest rank.
            ours_ms, mpi_ms = np.median(np.max(replies, axis=0), axis=1) * 1e3
            timings.append(
                Timing(
                    processes=coordinator.workers, size_bytes=size_bytes, ours_ms=float(ours_ms), mpi_ms=float(mpi_ms)
                )
            )
        sys.stdout.write(json.dumps([asdict(timing) for timing in timings]))


if __name__ == "__main__":
    _main()

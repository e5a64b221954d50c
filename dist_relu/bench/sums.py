"""The sum over workers, on one node or between several, beside what else there is to do it with, by turns.

Beside them stands what they cannot beat: as many bytes, read and written by all workers at once, or between nodes over
the wire by all nodes at once.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass

import numpy as np

from dist_relu.bench.bounds import memory_bound, wire_bound
from dist_relu.bench.summation import Summation, SumMemory, SumRequest
from dist_relu.bench.sums_peers import Peer, in_workers, slowest, time_sums
from dist_relu.coordinator import Coordinator, start
from dist_relu.errors import BackendError
from dist_relu.runtime.backends.mpi.backend import mpirun_path
from dist_relu.runtime.world import World

ROUNDS = 5
SIZES_BYTES = [4_000, 40_000, 400_000, 4_000_000, 40_000_000]

_ROUND_BYTES = 2e7
_LEAST_REPEATS, _MOST_REPEATS = 3, 100

_MARK = "dist_relu summed: "


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Median times of a sum of `size_bytes` of float32 over all workers of a backend; those of others by name.

    bound_ms: of as many bytes through memory, or on several nodes over the wire.
    """

    backend: str
    nodes: int
    workers: int
    size_bytes: int
    ours_ms: float
    bound_ms: float
    peers_ms: dict[str, float]

    @property
    def where(self) -> str:
        """Say over which workers it went."""
        nodes = f"{self.nodes} nodes" if self.nodes > 1 else "one node"
        return f"{self.workers} workers of {nodes}, {self.backend}"


def of_job(workers: int) -> Iterator[list[Timing]]:
    """Start an MPI job of so many ranks on this machine, and time all sizes in it; yields as `run` does."""
    command = [mpirun_path(), "-n", str(workers), sys.executable, "-m", "dist_relu.bench.sums"]
    timings: list[Timing] = []
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True) as job,
    ):
        assert job.stdout is not None
        try:
            for line in job.stdout:
                if line.startswith(_MARK):
                    timings.append(Timing(**json.loads(line.removeprefix(_MARK))))
                    yield [*timings]
        except BaseException:
            job.terminate()
            raise
        code = job.wait()
        if len(timings) < len(SIZES_BYTES):
            errors.seek(0)
            last = (errors.read().strip().splitlines() or ["nothing"])[-1]
            raise BackendError(f"The MPI job on {workers} ranks ended with code {code}. It said: {last}")


def run(backend: str, workers: int | None, on_size: Callable[[str], object]) -> Iterator[list[Timing]]:
    """Start workers, on Ray over its nodes, and time all sizes; yields all that was measured after each.

    on_size: is told which, before it begins.
    """
    with ExitStack() as stack:
        coordinator = stack.enter_context(start(workers, backend=backend, spread=backend == "ray"))
        bound = memory_bound if coordinator.nodes == 1 else stack.enter_context(wire_bound(coordinator))
        peers = stack.enter_context(in_workers(coordinator))
        if backend == "ray":
            from dist_relu.bench.sums_ray import ray_peers

            peers |= stack.enter_context(ray_peers(coordinator))
        timings: list[Timing] = []
        for timing in _timed(coordinator, peers, bound, on_size):
            timings.append(timing)
            yield [*timings]


def _timed(
    coordinator: Coordinator,
    peers: Mapping[str, Peer],
    bound: Callable[[Coordinator, int, int], list[float]],
    on_size: Callable[[str], object],
) -> Iterator[Timing]:
    for size_bytes in SIZES_BYTES:
        on_size(f"{coordinator.backend}, {coordinator.workers} workers, {size_bytes / 1e3:,.0f} kB")
        memory = SumMemory(coordinator.replicas, size_bytes // 4)
        repeats = int(np.clip(_ROUND_BYTES / size_bytes, _LEAST_REPEATS, _MOST_REPEATS))
        ours_s: list[float] = []
        bound_s: list[float] = []
        peers_s: dict[str, list[float]] = {name: [] for name in peers}
        for _ in range(ROUNDS):
            ours_s += slowest(coordinator.run(time_ours, memory.request(repeats)))
            for name, peer in peers.items():
                peers_s[name] += peer(size_bytes, repeats)
            bound_s += bound(coordinator, size_bytes, repeats)
        yield Timing(
            backend=coordinator.backend,
            nodes=coordinator.nodes,
            workers=coordinator.workers,
            size_bytes=size_bytes,
            ours_ms=_median_ms(ours_s),
            bound_ms=_median_ms(bound_s),
            peers_ms={name: _median_ms(seconds) for name, seconds in peers_s.items()},
        )


def time_ours(world: World, request: SumRequest) -> list[float]:
    """Seconds of each repetition.  Collective."""
    add = Summation(world, request)
    add.mine[:] = world.rank + 1
    seconds = time_sums(add, world.barrier.wait, request.repeats)
    assert (add.total == world.size * (world.size + 1) / 2).all()
    return seconds


def _median_ms(seconds: Sequence[float]) -> float:
    return float(np.median(seconds)) * 1e3


def _main() -> None:
    """Print what `of_job` asks for, from rank 0 of the job."""
    for timings in run("mpi", None, lambda size: None):
        print(_MARK + json.dumps(asdict(timings[-1])), flush=True)  # noqa: T201 - it is read


if __name__ == "__main__":
    _main()

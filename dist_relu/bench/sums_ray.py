"""What Ray itself has for a sum over the actors of several nodes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import final

import numpy as np

from dist_relu.bench.sums_peers import Peer, slowest, time_sums
from dist_relu.coordinator import Coordinator
from dist_relu.core.arrays import Array
from dist_relu.integrations import ray_collective
from dist_relu.runtime.world import World


@contextmanager
def ray_peers(coordinator: Coordinator) -> Iterator[dict[str, Peer]]:
    """Sums by actors that run where the workers of `coordinator` do, one beside each.

    Through the object store: every actor returns its array, and gets those of all others. By ray.util.collective: with
    our backend, and with Gloo if PyTorch is installed.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    actor = ray.remote(_Actor)
    nodes = coordinator.run(_ray_node, None)
    actors = [
        actor.options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(rank)
        for rank, node in enumerate(nodes)
    ]

    def object_store(size_bytes: int, repeats: int) -> list[float]:
        ray.get([actor.prepare.remote(size_bytes) for actor in actors])

        def add() -> None:
            arrays = [actor.array.remote() for actor in actors]
            ray.get([actor.add.remote(*arrays) for actor in actors])

        seconds = []
        for _ in range(1 + repeats):
            begin = perf_counter()
            add()
            seconds.append(perf_counter() - begin)
        return seconds[1:]

    def collective(backend: str, size_bytes: int, repeats: int) -> list[float]:
        replies = ray.get([actor.time_collective.remote(backend, size_bytes, repeats) for actor in actors])
        return slowest(replies)

    peers: dict[str, Peer] = {"Ray object store": object_store}
    try:
        for backend in (ray_collective.NAME, "gloo"):
            if all(ray.get([actor.join.remote(backend, len(actors)) for actor in actors])):
                peers[f"Ray collective {backend}"] = partial(collective, backend)
        yield peers
    finally:
        for one in actors:
            ray.kill(one)


def _ray_node(world: World, request: None) -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


@final
class _Actor:
    """One part in the sum; every actor has the array that is as full of a number as its own."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._array: Array = np.empty(0, np.float32)
        self._size = 0

    def prepare(self, size_bytes: int) -> None:
        self._array = np.full(size_bytes // 4, self._rank + 1, np.float32)

    def array(self) -> Array:
        return self._array

    def add(self, *arrays: Array) -> None:
        total = np.add(arrays[0], arrays[1])
        for array in arrays[2:]:
            np.add(total, array, out=total)
        assert (total[:1] == len(arrays) * (len(arrays) + 1) / 2).all()

    def join(self, backend: str, size: int) -> bool:
        """Join a group of ray.util.collective; whether there is such a backend."""
        from ray.util import collective

        self._size = size
        ray_collective.register()
        if not collective.is_backend_available(backend):
            return False
        collective.init_collective_group(size, self._rank, backend, backend)
        return True

    def time_collective(self, backend: str, size_bytes: int, repeats: int) -> list[float]:
        """Seconds of each repetition.  Collective."""
        from ray.util import collective
        from ray.util.collective.types import ReduceOp

        array = np.empty(size_bytes // 4, np.float32)

        def meet() -> None:
            array[:] = self._rank + 1
            collective.barrier(backend)

        seconds = time_sums(lambda: collective.allreduce(array, backend, ReduceOp.SUM), meet, repeats)
        assert (array == self._size * (self._size + 1) / 2).all()
        return seconds

"""What Ray itself has for a sum over the actors of several nodes."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any, final

import numpy as np

from dist_relu.arrays import Array
from dist_relu.bench.exchange import Peer, time_sums
from dist_relu.coordinator import Coordinator
from dist_relu.worker import World


@contextmanager
def ray_peers(coordinator: Coordinator) -> Iterator[dict[str, Peer]]:
    """Sums by actors that run where the workers of `coordinator` do, one beside each.

    Through the object store: every actor returns its array, and gets those of all others. ray.util.collective is there
    if its backend is: it needs PyTorch.
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

    def collective(size_bytes: int, repeats: int) -> list[float]:
        replies = ray.get([actor.time_collective.remote(size_bytes, repeats) for actor in actors])
        return [max(seconds) for seconds in zip(*replies, strict=True)]

    peers: dict[str, Peer] = {"object store": object_store}
    try:
        name = secrets.token_hex(4)
        if all(ray.get([actor.join.remote(len(actors), name) for actor in actors])):
            peers["ray.util.collective (gloo)"] = collective
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
        self._group = ""
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

    def join(self, size: int, group: str) -> bool:
        """Join a group of ray.util.collective; whether there is a backend for it."""
        from ray.util import collective

        self._size, self._group = size, group
        if not collective.is_backend_available("gloo"):
            return False
        collective.init_collective_group(size, self._rank, "gloo", group)
        return True

    def time_collective(self, size_bytes: int, repeats: int) -> list[float]:
        """Seconds of each repetition.  Collective."""
        from ray.util import collective
        from ray.util.collective.types import ReduceOp

        array = np.full(size_bytes // 4, self._rank + 1, np.float32)

        def add() -> None:
            collective.allreduce(array, self._group, ReduceOp.SUM)

        def meet() -> Any:
            collective.barrier(self._group)

        seconds = time_sums(add, meet, repeats)
        assert array[0] >= self._size * (self._size + 1) / 2  # it goes on from sum to sum
        return seconds

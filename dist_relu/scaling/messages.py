"""Messages between two nodes are timed, so that a network is known by what training's own messages take on it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dist_relu.comm.channel import ProgressEngine
from dist_relu.coordinator import Coordinator
from dist_relu.core.arrays import Array
from dist_relu.runtime.world import World

_SMALL_BYTES, _LARGE_BYTES = 4_000, 4_000_000
"""Two sizes tell a latency and a bandwidth; the larger one is more than what buffers on the way hold."""

_REPEATS = {_SMALL_BYTES: 40, _LARGE_BYTES: 6}
_TAG = 0


@dataclass(frozen=True, kw_only=True)
class Timed:
    """What was timed.

    messages: bytes of each, and seconds until it was there.  cpu_s_per_byte: processor time of both ends for a byte of
    the large ones.
    """

    messages: Sequence[tuple[int, float]]
    cpu_s_per_byte: float


def time_messages(coordinator: Coordinator) -> Timed:
    """Time messages to and fro between the first two nodes, while all others wait; none where there is one node."""
    if coordinator.nodes == 1:
        return Timed(messages=(), cpu_s_per_byte=0.0)
    replies = coordinator.run(_time, None)
    messages = [message for reply in replies for message in reply.messages]
    return Timed(messages=messages, cpu_s_per_byte=sum(reply.cpu_s_per_byte for reply in replies))


def _time(world: World, request: object) -> Timed:
    """Take part, if this is the first worker of one of the first two nodes.  Collective."""
    assert world.progress_engine
    first, second = (ranks.start for ranks in world.nodes[:2])
    messages: list[tuple[int, float]] = []
    cpu_s = 0.0
    for size_bytes, repeats in _REPEATS.items():
        array = np.zeros(size_bytes, np.uint8)
        world.barrier.wait()
        if world.rank not in (first, second):
            continue
        other = second if world.rank == first else first
        cpu_began_s = time.process_time()
        for number in range(repeats + 1):
            began_s = time.perf_counter()
            for is_sender in (world.rank == first, world.rank == second):
                _pass_on(world.progress_engine, array, other, sends=is_sender)
            if number and world.rank == first:  # the first one opens connections
                messages.append((size_bytes, (time.perf_counter() - began_s) / 2))
        cpu_s = time.process_time() - cpu_began_s  # of the large ones in the end
    world.barrier.wait()
    carried_bytes = 2 * _LARGE_BYTES * (_REPEATS[_LARGE_BYTES] + 1)
    return Timed(messages=messages, cpu_s_per_byte=cpu_s / carried_bytes)


def _pass_on(engine: ProgressEngine, array: Array, rank: int, *, sends: bool) -> None:
    """Send an array to another worker, or get one from it."""
    under_way = [True]
    (engine.send if sends else engine.receive)(array, rank, _TAG, under_way.clear)
    engine.wait_until(lambda: not under_way)

"""Messages between nodes are timed, so that a network is known by what training's own messages take on it.

How long they take is told by two nodes alone. What they take of the nodes' cores is told by all nodes at once, as in
the exchange of a step: where many share cores or caches, it is more.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from dist_relu.comm.channel import ProgressEngine
from dist_relu.coordinator import Coordinator
from dist_relu.core.arrays import Array
from dist_relu.runtime.world import World

_SMALL_BYTES, _LARGE_BYTES = 4_000, 4_000_000
"""Two sizes tell a latency and a bandwidth; the larger one is more than what buffers on the way hold."""

_REPEATS = {_SMALL_BYTES: 40, _LARGE_BYTES: 6}
_TAG = 0

_FLIGHT_SIZES, _FLIGHT_REPEATS = (1 << 14, 1 << 18), 6
"""Of messages that are under way together; the larger one is as large as training's."""

_FLIGHT = 16
"""So many messages of a node are, about."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """What was timed.

    messages: bytes of each, and seconds until it was there.  message_s, cpu_s_per_byte: processor time of a node for a
    message that it sends and one that it receives, and for each of their bytes, while all nodes send at once.
    """

    messages: Sequence[tuple[int, float]] = ()
    message_s: float = 0.0
    cpu_s_per_byte: float = 0.0


def time_messages(coordinator: Coordinator) -> Timed:
    """Time messages to and fro between the first two nodes, then from all to all; none where there is one node."""
    if coordinator.nodes == 1:
        return Timed()
    messages = [message for of_worker in coordinator.run(_time_two, None) for message in of_worker]
    spent = [times for times in coordinator.run(_spend, None) if times]
    small_s, large_s = np.mean(spent, axis=0)
    small_bytes, large_bytes = _FLIGHT_SIZES
    cpu_s_per_byte = max(large_s - small_s, 0.0) / (large_bytes - small_bytes)
    return Timed(
        messages=messages,
        message_s=float(max(small_s - small_bytes * cpu_s_per_byte, 0.0)),
        cpu_s_per_byte=float(cpu_s_per_byte),
    )


def _time_two(world: World, request: object) -> list[tuple[int, float]]:
    """Take part, if this is the first worker of one of the first two nodes; returns bytes and seconds.  Collective."""
    assert world.progress_engine
    first, second = (ranks.start for ranks in world.nodes[:2])
    messages: list[tuple[int, float]] = []
    for size_bytes, repeats in _REPEATS.items():
        array = np.zeros(size_bytes, np.uint8)
        world.barrier.wait()
        if world.rank not in (first, second):
            continue
        other = second if world.rank == first else first
        for number in range(repeats + 1):
            began_s = time.perf_counter()
            for is_sender in (world.rank == first, world.rank == second):
                _pass_on(world.progress_engine, array, other, sends=is_sender)
            if number and world.rank == first:  # the first one opens connections
                messages.append((size_bytes, (time.perf_counter() - began_s) / 2))
    world.barrier.wait()
    return messages


def _spend(world: World, request: object) -> list[float]:
    """Send and receive, if this is the first worker of a node.  Collective.

    Returns processor time for a message that is sent and one that is received, of each size.
    """
    assert world.progress_engine
    first_ranks = [ranks.start for ranks in world.nodes]
    others = [rank for rank in first_ranks if rank != world.rank]
    spent_s = []
    for size_bytes in _FLIGHT_SIZES:
        pairs = [
            (rank, np.zeros(size_bytes, np.uint8), np.zeros(size_bytes, np.uint8))
            for rank in others
            for _ in range(-(-_FLIGHT // len(others)))
        ]
        world.barrier.wait()
        if world.rank not in first_ranks:
            continue
        _let_fly(world.progress_engine, pairs)  # the first ones open connections
        began_s = time.process_time()
        for _ in range(_FLIGHT_REPEATS):
            _let_fly(world.progress_engine, pairs)
        spent_s.append((time.process_time() - began_s) / (_FLIGHT_REPEATS * len(pairs)))
    world.barrier.wait()
    return spent_s


def _let_fly(engine: ProgressEngine, pairs: Sequence[tuple[int, Array, Array]]) -> None:
    """Send an array to each of these workers and get another one from it, all at once."""
    under_way = set(range(2 * len(pairs)))
    for number, (rank, sent, received) in enumerate(pairs):
        engine.receive(received, rank, _TAG, partial(under_way.discard, 2 * number))
        engine.send(sent, rank, _TAG, partial(under_way.discard, 2 * number + 1))
    engine.wait_until(lambda: not under_way)


def _pass_on(engine: ProgressEngine, array: Array, rank: int, *, sends: bool) -> None:
    """Send an array to another worker, or get one from it."""
    under_way = [True]
    (engine.send if sends else engine.receive)(array, rank, _TAG, under_way.clear)
    engine.wait_until(lambda: not under_way)

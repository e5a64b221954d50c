"""What no sum over workers can beat: the bytes that it must move, moved by all at once and with nothing else done.

S bytes over n workers of a node: each worker reads its S/n of what all have, and writes as much of the sum. Over m
nodes 2 (m-1)/m S leave each of them, and as much comes in (Patarasuk and Yuan 2009, theorem 1).
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np

from dist_relu.bench.sums_peers import slowest, time_sums
from dist_relu.comm.handshake import Endpoint, Listener, connect
from dist_relu.coordinator import Coordinator
from dist_relu.core.interfaces import addresses_by_interface
from dist_relu.errors import BackendError
from dist_relu.runtime.world import World

_TIMEOUT_S = 30.0
_KEY = "dist_relu.bench.bounds"


def memory_bound(coordinator: Coordinator, size_bytes: int, repeats: int) -> list[float]:
    """Seconds of each repetition of as many bytes as a sum on one node reads and writes."""
    return slowest(coordinator.run(_time_memory, (size_bytes, repeats)))


def _time_memory(world: World, request: tuple[int, int]) -> list[float]:
    """c = a + b (STREAM's Add, McCalpin 1995) out of arrays of this worker's own, by all workers at once."""
    size_bytes, repeats = request
    moved_bytes = (world.size + 1) * size_bytes / world.size
    a, b, c = (np.full(max(int(moved_bytes / 12), 1), 1, np.float32) for _ in range(3))
    return time_sums(lambda: np.add(a, b, out=c), world.barrier.wait, repeats)


@contextmanager
def wire_bound(coordinator: Coordinator) -> Iterator[Callable[[Coordinator, int, int], list[float]]]:
    """Connect nodes in a ring, over which each then sends to the next what must leave it in a sum, all at once."""
    secret = secrets.token_bytes(32)
    endpoints = coordinator.run(_listen, secret)
    coordinator.run(_connect, (secret, endpoints))

    def bound(_: Coordinator, size_bytes: int, repeats: int) -> list[float]:
        return slowest(coordinator.run(_time_wire, (size_bytes, repeats)))

    try:
        yield bound
    finally:
        coordinator.run(_hang_up, None)


def _listen(world: World, secret: bytes) -> Endpoint | None:
    if world.node.rank:
        return None
    listener = Listener(secret, list(addresses_by_interface().values()))
    world.kept[_KEY] = listener
    return listener.endpoint


def _connect(world: World, request: tuple[bytes, Sequence[Endpoint]]) -> None:
    """Connect the first worker of each node to that of the next one."""
    if world.node.rank:
        return
    secret, endpoints = request
    listener: Listener = world.kept[_KEY]
    following = world.nodes[(world.node.number + 1) % len(world.nodes)].start
    with ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(listener.accept, _TIMEOUT_S)
        outgoing = connect(endpoints[following], secret, world.rank)
        incoming = accepted.result()
    listener.close()
    if outgoing is None or incoming is None:
        raise BackendError(f"Worker {world.rank} has no connection with worker {following} at {endpoints[following]}.")
    connections = outgoing, incoming[1]
    for connection in connections:
        connection.settimeout(_TIMEOUT_S)
    world.kept[_KEY] = connections


def _time_wire(world: World, request: tuple[int, int]) -> list[float]:
    """Seconds of each repetition; workers that are not the first of their node have nothing to do."""
    size_bytes, repeats = request
    num_nodes = len(world.nodes)
    size = max(int(2 * (num_nodes - 1) / num_nodes * size_bytes), 1)
    leaving, arriving = bytes(size), bytearray(size)
    with ThreadPoolExecutor(1) as pool:

        def shift() -> None:
            if world.node.rank:
                return
            outgoing, incoming = world.kept[_KEY]
            sent = pool.submit(outgoing.sendall, leaving)
            _fill(arriving, incoming)
            sent.result()

        return time_sums(shift, world.barrier.wait, repeats)


def _fill(buffer: bytearray, connection: socket.socket) -> None:
    view = memoryview(buffer)
    while view:
        received = connection.recv_into(view)
        if not received:
            raise BackendError("Another node has hung up.")
        view = view[received:]


def _hang_up(world: World, request: None) -> None:
    if not world.node.rank:
        for connection in world.kept.pop(_KEY):
            connection.close()

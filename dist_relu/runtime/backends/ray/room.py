"""Where a Ray cluster has room for workers, and which nodes they go to."""

from __future__ import annotations

import importlib
import logging
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from math import floor
from typing import Any

from dist_relu.core.machine import num_cores
from dist_relu.errors import DistReluError, NoRoom, PartitionError, UnsuitableBackend
from dist_relu.runtime.backends.ray.cluster import Cluster
from dist_relu.runtime.backends.ray.connection import import_ray

_log = logging.getLogger(__name__)

_REACH_TIMEOUT_S = 0.5
"""How long a node may take to accept a connection; one that was cut off is thought to be there for another minute."""

TIME_TO_PLACE_S = 0.5
"""How long it may take Ray to place workers where they are wanted."""

_TIME_TO_FIND_ROOM_S = 1.5
"""How long there may be no room for a worker: Ray takes a moment to see what became free."""

_TIME_TO_COME_FREE_S = 8.0
"""The same for one in whose place another one is to start: it takes Ray 5 s to end a worker that does not answer."""

SHORT_POLL_S = 0.02

_CONNECT_TIMEOUT_S = 5.0

_TOKEN_CPU = 0.001
"""What a worker asks of a private cluster, where nobody else asks for anything."""


def cpus_of_cluster() -> tuple[float, float]:
    """Count how many CPUs the cluster has, and how many of them are free."""
    ray = import_ray()
    total, free = ray.cluster_resources(), ray.available_resources()
    return total.get("CPU", 0.0), free.get("CPU", 0.0)


def cpus_per_worker(cluster: Cluster, num_workers: int, threads_per_worker: int) -> float:
    """Return the CPUs that each worker asks for; on a single machine with too few, as on any other, they share them."""
    if cluster.is_private:
        return _TOKEN_CPU
    total, _ = cpus_of_cluster()
    num_nodes = sum(node["Alive"] for node in import_ray().nodes())
    if num_nodes > 1 or total == 0 or num_workers * threads_per_worker <= total:
        return threads_per_worker
    _log.warning(f"{num_workers} workers share the {total:g} CPUs of this Ray cluster.")
    return floor(total / num_workers * 1e4) / 1e4  # Ray counts in these


def check_nodes(num_workers: int, nodes: int, threads_per_worker: int) -> None:
    """Check that so many nodes of the cluster may have as many of the workers each, once nobody else has their CPUs.

    On a single machine with too few CPUs workers share them, see `cpus_per_worker`.
    Raises PartitionError where the workers can't be divided by the nodes, and UnsuitableBackend where too few living
    nodes have CPUs for them.
    """
    if num_workers % nodes:
        raise PartitionError(f"nodes={nodes} does not divide workers={num_workers}.")
    living = [node["Resources"] for node in import_ray().nodes() if node["Alive"]]
    there = sorted((of_node.get("CPU", 0.0) for of_node in living), reverse=True)
    cpus = num_workers // nodes * threads_per_worker
    if sum(of_node >= cpus for of_node in there) < nodes and not nodes == len(there) == 1:
        raise UnsuitableBackend(
            f"workers={num_workers} on nodes={nodes} need {cpus} CPU{'s' * (cpus > 1)} on each. This Ray cluster's "
            f"nodes have: {', '.join(f'{of_node:g}' for of_node in there)}. Ask for fewer, or add nodes."
        )


def lacking_nodes(sizes: Collection[tuple[int, int]]) -> dict[tuple[int, int], DistReluError]:
    """Tell which numbers of workers can never be on which numbers of nodes, and why.

    The cluster is the one that workers without an address would be started on; it is joined, and left again.
    sizes: numbers of workers and of nodes.
    Raises BackendError when there is no way to the cluster.
    """
    lacking: dict[tuple[int, int], DistReluError] = {}
    cluster = Cluster.join(None, num_cores(), _CONNECT_TIMEOUT_S)
    try:
        for workers, nodes in sizes:
            try:
                check_nodes(workers, nodes, threads_per_worker=1)
            except (PartitionError, UnsuitableBackend) as error:
                lacking[workers, nodes] = error
    finally:
        cluster.leave()
    return lacking


def room_by_node(cpus: float, unreachable: set[str]) -> dict[str, int]:
    """Tell for how many workers of so many CPUs there is room on each node, by Ray's name for it.

    unreachable: nodes that are left out; those that turn out to be so are added.
    """
    state: Any = importlib.import_module("ray._private.state")
    free = state.available_resources_per_node()
    room = {}
    for node in import_ray().nodes():
        name = node["NodeID"]
        if not node["Alive"] or name in unreachable:
            continue
        if _is_reachable(node["NodeManagerAddress"], node["NodeManagerPort"]):
            room[name] = int(free.get(name, {}).get("CPU", 0.0) / cpus + 1e-6)
        else:
            unreachable.add(name)
    return room


def choose_nodes(
    wanted: Sequence[str | None], room: Mapping[str, int], members: Sequence[str], *, spread: bool
) -> list[str]:
    """Choose a node for each of several workers, or for as many as there is room for.

    wanted: the node where each should best go, None where that does not matter.  room: see `room_by_node`.
    members: the nodes where others are already; those that don't care go where most are, or the fewest if `spread`.
    """
    left = dict(room)
    chosen: dict[int, str] = {}
    for i, node in enumerate(wanted):
        if node is not None and left.get(node, 0):
            chosen[i] = node
            left[node] -= 1
    for i in range(len(wanted)):
        if i in chosen:
            continue
        taken = [*members, *chosen.values()]
        candidates = [node for node, fitting in left.items() if fitting]
        if not candidates:
            break
        best = min(candidates, key=lambda node: ((1 if spread else -1) * taken.count(node), -left[node]))
        chosen[i] = best
        left[best] -= 1
    return [chosen[i] for i in sorted(chosen)]


def find_room(
    cluster: Cluster, cpus: float, wanted: Sequence[str | None], members: Sequence[str], *, spread: bool
) -> list[str]:
    """Find nodes for so many workers of so many CPUs, and wait for what is about to come free; see `choose_nodes`.

    Raises NoRoom where there is none for all.
    """
    began = time.monotonic()
    unreachable: set[str] = set()
    while wanted:
        room = room_by_node(cpus, unreachable)
        nodes = choose_nodes(wanted, room, members, spread=spread)
        passed_s = time.monotonic() - began
        as_wanted = all(node in (None, chosen) for node, chosen in zip(wanted, nodes, strict=False))
        if len(nodes) == len(wanted) and (as_wanted or passed_s > TIME_TO_PLACE_S):
            return nodes
        is_coming = any(node in room for node in wanted)
        if passed_s > (_TIME_TO_COME_FREE_S if is_coming else _TIME_TO_FIND_ROOM_S):
            there = len(members) + len(nodes)
            error = NoRoom(
                f"There is no room for {len(members) + len(wanted)} workers with {cpus:g} CPUs each in this "
                f"Ray cluster, but for {there}. Ask for fewer, or add nodes."
            )
            error.room = there
            raise error
        time.sleep(SHORT_POLL_S)
        cluster.check()
    return []


def _is_reachable(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), _REACH_TIMEOUT_S).close()
    except OSError:
        return False
    return True

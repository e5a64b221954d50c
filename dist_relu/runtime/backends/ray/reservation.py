"""Room for all workers of a group at once, or for none: of two groups that wait for room neither has half of it."""

from __future__ import annotations

import logging
import time
from typing import final

from dist_relu.runtime.backends.ray.cluster import Cluster
from dist_relu.runtime.backends.ray.connection import import_ray
from dist_relu.runtime.backends.ray.room import SHORT_POLL_S, cpus_of_cluster

_log = logging.getLogger(__name__)

_QUIET_WAIT_S = 3.0
"""How long resources may take before the user is told what is missing."""

_POLL_S = 0.1


@final
class Reservation:
    """A reservation asks for `cpus` CPUs for each of `num_workers`, and holds them from then on until `release`.

    nodes: on exactly so many, as many workers on each; None: on as few as have room.  spread: on as many as there are
    instead.  name: as Ray shows it to people.
    """

    def __init__(
        self, cluster: Cluster, num_workers: int, cpus: float, *, nodes: int | None, spread: bool, name: str
    ) -> None:
        self._cluster, self._num_workers, self._cpus, self._num_nodes = cluster, num_workers, cpus, nodes
        self._ray = import_ray()
        self._in_bundle = num_workers // nodes if nodes else 1
        self._group = self._ray.util.placement_group(
            [{"CPU": cpus * self._in_bundle}] * (num_workers // self._in_bundle),
            "STRICT_SPREAD" if nodes else "SPREAD" if spread else "PACK",
            name,
        )

    def nodes(self, timeout_s: float) -> list[str] | None:
        """Return the node of each worker's CPUs, by Ray's name; None if they are not there in that time."""
        deadline = time.monotonic() + timeout_s
        while True:
            self._cluster.check()
            table = self._ray.util.placement_group_table(self._group)
            if table["state"] == "CREATED":
                of_bundles = table["bundles_to_node_id"]
                return [of_bundles[bundle] for bundle in sorted(of_bundles) for _ in range(self._in_bundle)]
            if time.monotonic() > deadline:
                return None
            time.sleep(SHORT_POLL_S)

    def wait(self) -> list[str]:
        """Return `nodes`, however long it takes; the user hears what it waits for."""
        nodes = self.nodes(_QUIET_WAIT_S)
        if nodes is None:
            total, free = cpus_of_cluster()
            where = f" on {self._num_nodes} node{'s' * (self._num_nodes > 1)}" if self._num_nodes else ""
            _log.warning(
                f"Waiting for {self._cpus * self._num_workers:g} CPUs{where}, {self._cpus:g} for each worker. "
                f"This Ray cluster has {total:g}, of which free: {free:g}."
            )
        while nodes is None:
            time.sleep(_POLL_S)
            nodes = self.nodes(_POLL_S)
        return nodes

    def release(self) -> None:
        """Give the CPUs back."""
        self._ray.util.remove_placement_group(self._group)

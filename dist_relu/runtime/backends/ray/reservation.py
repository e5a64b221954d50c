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

    spread: over as many nodes as there are, rather than on as few as have room.  name: as Ray shows it to people.
    """

    def __init__(self, cluster: Cluster, num_workers: int, cpus: float, *, spread: bool, name: str) -> None:
        self._cluster, self._num_workers, self._cpus = cluster, num_workers, cpus
        self._ray = import_ray()
        self._group = self._ray.util.placement_group(
            [{"CPU": cpus}] * num_workers, "SPREAD" if spread else "PACK", name
        )

    def nodes(self, timeout_s: float) -> list[str] | None:
        """Return the node of each worker's CPUs, by Ray's name; None if they are not there in that time."""
        deadline = time.monotonic() + timeout_s
        while True:
            self._cluster.check()
            table = self._ray.util.placement_group_table(self._group)
            if table["state"] == "CREATED":
                of_bundles = table["bundles_to_node_id"]
                return [of_bundles[bundle] for bundle in sorted(of_bundles)]
            if time.monotonic() > deadline:
                return None
            time.sleep(SHORT_POLL_S)

    def wait(self) -> list[str]:
        """Return `nodes`, however long it takes; the user hears what it waits for."""
        nodes = self.nodes(_QUIET_WAIT_S)
        if nodes is None:
            total, free = cpus_of_cluster()
            _log.warning(
                f"Waiting for {self._cpus * self._num_workers:g} CPUs, {self._cpus:g} for each worker. "
                f"This Ray cluster has {total:g}, of which free: {free:g}."
            )
        while nodes is None:
            time.sleep(_POLL_S)
            nodes = self.nodes(_POLL_S)
        return nodes

    def release(self) -> None:
        """Give the CPUs back."""
        self._ray.util.remove_placement_group(self._group)

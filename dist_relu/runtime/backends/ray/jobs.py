"""The jobs that run in a Ray cluster, by the names of their actors."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dist_relu.runtime.backends.ray.cluster import Cluster
from dist_relu.runtime.backends.ray.connection import import_ray

_CONNECT_TIMEOUT_S = 5.0


@dataclass(frozen=True, kw_only=True)
class RayJob:
    """A job in a Ray cluster.

    run: tells it from others.  namespace: Ray's, of its coordinator.  actors: how many of its workers live.
    """

    run: str
    namespace: str
    actors: int


def jobs_in_cluster(address: str) -> list[RayJob]:
    """List the jobs of the cluster at an address, HOST:PORT.  Raises BackendError when there is no way to it."""
    cluster = Cluster.join(address, 0, _CONNECT_TIMEOUT_S)
    try:
        named = import_ray().util.list_named_actors(all_namespaces=True)
    finally:
        cluster.leave()
    numbers: dict[tuple[str, str], int] = {}
    for each in named:
        if found := re.fullmatch(r"dist_relu worker \d+ of \d+ \(([^.]+).*\)", each["name"]):
            job = found[1], each["namespace"]
            numbers[job] = numbers.get(job, 0) + 1
    return [RayJob(run=run, namespace=space, actors=number) for (run, space), number in sorted(numbers.items())]

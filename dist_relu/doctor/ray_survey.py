"""Asking the nodes of a Ray cluster: one actor on each.  `python -m dist_relu.doctor.ray_survey` prints JSON.

Links are measured over plain sockets between the nodes' addresses. That is what Ray's own messages pass through.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import threading
import time
from contextlib import closing
from typing import Any

import numpy as np

from dist_relu.comm.handshake import Endpoint, Listener, connect
from dist_relu.core.arrays import Array
from dist_relu.core.machine import num_cores
from dist_relu.doctor.finding import Finding
from dist_relu.doctor.survey import LARGEST_BYTES, Link, Process, Survey, measure

_TIMEOUT_S = 20.0
_LOOK_TIMEOUT_S = 400.0


class Node:
    """What runs on each node, as an actor."""

    def process(self, rank: int) -> Process:
        """Tell how this node presents itself."""
        return Process.here(rank)

    def look(self) -> list[Finding]:
        """Return what the checks of a single machine find."""
        from dist_relu.doctor.checks import look_at_machine

        return list(look_at_machine())

    def clock(self) -> float:
        """Return this node's time, in seconds."""
        return time.time()

    def listen(self, address: str, secret: bytes) -> Endpoint:
        """Wait for one connection, of one who knows the secret, and send back what comes; returns the endpoint."""
        listener = Listener(secret, [address], on=address)
        threading.Thread(target=_send_back, args=[listener], daemon=True).start()
        return listener.endpoint

    def measure(self, source: str, target: str, endpoint: Endpoint, secret: bytes, clock: Any) -> Link:
        """Measure the link to a listening node.  clock: asks it for its time."""
        connection = connect(endpoint, secret, 0)
        if connection is None:
            raise RuntimeError(
                f"{target} can't be reached from {source} at {endpoint}. Nodes of a Ray cluster must reach each other "
                "on all ports"
            )
        with closing(connection):
            connection.settimeout(_TIMEOUT_S)

            def exchange(buffer: Array) -> None:
                connection.sendall(buffer.size.to_bytes(8, "little"), socket.MSG_MORE)
                connection.sendall(buffer.data)
                _read_into(connection, buffer)

            return measure(source, target, exchange, clock)


def _send_back(listener: Listener) -> None:
    accepted = listener.accept(_TIMEOUT_S)
    listener.close()
    if accepted is None:
        return
    with closing(accepted[1]) as connection:
        connection.settimeout(_TIMEOUT_S)
        head = np.empty(8, np.uint8)
        while _read_into(connection, head):
            size_bytes = int.from_bytes(head.tobytes(), "little")
            if size_bytes > LARGEST_BYTES:
                return
            buffer = np.empty(size_bytes, np.uint8)
            _read_into(connection, buffer)
            connection.sendall(buffer.data)


def _read_into(connection: socket.socket, buffer: Array) -> bool:
    """Fill the buffer; False when the other end has hung up."""
    view = buffer.data
    while view:
        count = connection.recv_into(view)
        if not count:
            return False
        view = view[count:]
    return True


def main() -> None:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from dist_relu.doctor.ray import content_of
    from dist_relu.runtime.backends.ray.authentication import danger_of, has_authentication
    from dist_relu.runtime.backends.ray.private_cluster import PrivateCluster

    private = None
    try:
        if os.environ["RAY_ADDRESS"] == "local":
            private = PrivateCluster(num_cores())
        else:
            ray.init(log_to_driver=False, logging_level="ERROR", configure_logging=True, include_dashboard=None)
        nodes = sorted((node for node in ray.nodes() if node["Alive"]), key=lambda node: not _is_head(node))
        actors = [
            ray.remote(Node)
            .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
            .remote()
            for node in nodes
        ]
        asked = [actor.process.remote(rank) for rank, actor in enumerate(actors)]
        processes = ray.get(asked, timeout=_TIMEOUT_S * 3)
        looks = [actor.look.remote() for actor in actors[1:]]
        found = ray.get(looks, timeout=_LOOK_TIMEOUT_S)
        links = []
        for process, node, actor in list(zip(processes, nodes, actors, strict=True))[1:]:
            secret = secrets.token_bytes(32)
            endpoint = ray.get(actor.listen.remote(node["NodeManagerAddress"], secret), timeout=_TIMEOUT_S)
            measured = actors[0].measure.remote(processes[0].host, process.host, endpoint, secret, _Clock(actor))
            links.append(ray.get(measured, timeout=_TIMEOUT_S * 3))
        elsewhere = [
            (process.host, finding)
            for process, findings in zip(processes[1:], found, strict=True)
            for finding in findings
        ]
        survey = Survey("Ray", processes, links, elsewhere)
        cpus = ray.cluster_resources().get("CPU", 0)
        danger = danger_of(ray.get_runtime_context().gcs_address, has_authentication=has_authentication())
        content = content_of(survey, version=ray.__version__, nodes=len(nodes), cpus=cpus, danger=danger)
        sys.stdout.write(json.dumps(content) + "\n")
        sys.stdout.flush()
    except Exception as error:
        cause = getattr(error, "cause", None) or error
        sys.exit(" ".join(str(cause).split()).rstrip("."))
    finally:
        ray.shutdown()
        if private:
            private.end()


def _is_head(node: dict[str, Any]) -> bool:
    return "node:__internal_head__" in node["Resources"]


class _Clock:
    """Asks an actor for its time."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __call__(self) -> float:
        import ray

        return float(ray.get(self._actor.clock.remote()))


if __name__ == "__main__":
    main()

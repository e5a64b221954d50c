"""Who the processes are, and on which nodes they run."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

_NODE_VARIABLE = "DIST_RELU_NODE"
"""Processes that set it to different names count as on different nodes, even where they could share memory."""


@dataclass(frozen=True)
class ProcessInfo:
    """What a process tells the others of itself.

    node: equal for processes that share memory: those of one user that see the same processes through the same network.
    Containers that share both count as one; hosts of a test network on one machine do not.
    """

    pid: int
    host: str
    node: str

    @classmethod
    def here(cls, node: str = "") -> ProcessInfo:
        """Describe this process.  node: a name that sets it apart from other processes of its machine."""
        boot = _read("/proc/sys/kernel/random/boot_id")
        spaces = " ".join(os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "net"))
        return cls(os.getpid(), socket.gethostname(), f"{boot} {spaces} {os.getuid()} {node}".rstrip())

    @classmethod
    def in_cluster(cls) -> ProcessInfo:
        """Describe this process as one of a cluster, where the environment may set it apart."""
        return cls.here(os.environ.get(_NODE_VARIABLE, ""))


def by_node(peers: Sequence[ProcessInfo]) -> list[int]:
    """Return the numbers of `peers` in an order where those of a node stand together, the first peer's node first."""
    nodes = list(dict.fromkeys(peer.node for peer in peers))
    return sorted(range(len(peers)), key=lambda i: nodes.index(peers[i].node))


def nodes_of(peers: Sequence[ProcessInfo]) -> list[range]:
    """Return the ranks of each node.  peers: by rank, those of a node together."""
    nodes: list[range] = []
    for rank, peer in enumerate(peers):
        if rank and peer.node == peers[rank - 1].node:
            nodes[-1] = range(nodes[-1].start, rank + 1)
        else:
            nodes.append(range(rank, rank + 1))
    return nodes


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read().strip()

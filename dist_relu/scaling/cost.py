"""The cost model: how long a step takes on so many nodes, from what one of them computes and what messages cost.

    step = shards of the slowest node + its sums + what of the exchange is not hidden + update

What a node computes is measured or stated; only the exchange is modelled. Gradients leave while backward still runs, so
a message waits for what it carries and for the link, which carries one at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, log2
from statistics import NormalDist
from typing import Literal

from dist_relu.comm.buckets import num_buckets
from dist_relu.scaling.network import Network

Scheme = Literal["owner", "halving", "ring"]
"""How gradients are added over nodes.

owner: each part goes to a node that adds it and sends the sum back.  halving: recursive halving and doubling (Thakur et
al. 2005), in log2(nodes) rounds each way.  ring: in nodes - 1 rounds each way (Patarasuk and Yuan 2009).
"""

OURS: tuple[Scheme, ...] = ("owner", "halving")
"""Those that training has."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of the gradient leaves together.  ready_s: when, from the beginning of the step."""

    ready_s: float
    size_bytes: float


@dataclass(frozen=True, kw_only=True)
class Work:
    """What the slowest node does in a step, apart from the exchange.

    parts: of the gradient, in the order in which they leave.  shards_s: until backward is through, with the sums of
    parts that have left by then.  node_sum_s: from there until the last part has left.  update_s: when all sums are
    back.
    """

    parts: Sequence[Part]
    shards_s: float
    node_sum_s: float = 0.0
    update_s: float = 0.0

    @property
    def seconds(self) -> float:
        """How long it takes without an exchange."""
        return self.shards_s + self.node_sum_s + self.update_s

    @property
    def size_bytes(self) -> float:
        """Of the whole gradient."""
        return sum(part.size_bytes for part in self.parts)

    def sending(self, share: float) -> Work:
        """Return the same where parts take this share of their bytes."""
        return replace(self, parts=[replace(part, size_bytes=part.size_bytes * share) for part in self.parts])

    def slowed(self, factor: float) -> Work:
        """Return the same where everything takes so many times as long."""
        return replace(
            self,
            parts=[replace(part, ready_s=part.ready_s * factor) for part in self.parts],
            shards_s=self.shards_s * factor,
            node_sum_s=self.node_sum_s * factor,
            update_s=self.update_s * factor,
        )


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step, and what it consists of.  exchange_s: all of it; exposed_s: what is not hidden behind other work."""

    shards_s: float
    node_sum_s: float
    exposed_s: float
    update_s: float
    exchange_s: float
    scheme: Scheme

    @property
    def seconds(self) -> float:
        return self.shards_s + self.node_sum_s + self.exposed_s + self.update_s

    @property
    def hidden_share(self) -> float:
        """How much of the exchange is hidden; 1 where there is none."""
        return 1 - self.exposed_s / self.exchange_s if self.exchange_s else 1.0


def rounds_of(scheme: Scheme, nodes: int) -> int:
    """Count how many messages follow one another until all nodes have a sum."""
    match scheme:
        case "owner":
            return 2
        case "halving":
            return 2 * ceil(log2(nodes))
        case "ring":
            return 2 * (nodes - 1)


def messages_of(scheme: Scheme, nodes: int, work: Work) -> float:
    """Count the messages that a node sends in a step."""
    if scheme == "owner":
        return 2 * (nodes - 1) * num_buckets(round(work.size_bytes), nodes) / nodes
    return rounds_of(scheme, nodes) * len(work.parts)


def share_of(scheme: Scheme, nodes: int) -> float:
    """Tell how often the gradient leaves a node in a step, as much of it arriving.

    It is 2·(nodes - 1)/nodes by any scheme, which is the least that there is. But where nodes are no power of two,
    halving first folds those that are too many into others, which carries all of it once more each way.
    """
    return 2 * (nodes - 1) / nodes + (scheme == "halving" and nodes & (nodes - 1) > 0)


def step_of(work: Work, network: Network, nodes: int, scheme: Scheme, *, crowding: float = 1.0) -> Step:
    """Forecast a step.

    crowding: how many workers share a core, where hosts are no machines of their own; all that cores do takes so many
    times as long then.
    """
    work = work.slowed(crowding)
    if nodes == 1:
        return _step(work, 0.0, 0.0, scheme)
    share = share_of(scheme, nodes)
    s_per_byte = max(
        share / network.bytes_per_s,
        share * network.cpu_s_per_byte * crowding,
        messages_of(scheme, nodes, work) * network.message_s * crowding / work.size_bytes,
    )
    end_s = 0.0
    for part in work.parts:
        end_s = max(end_s, part.ready_s) + part.size_bytes * s_per_byte
    if scheme == "owner":  # of the last bucket its owner gets what all others have, and sends them what it comes to
        bucket_bytes = work.size_bytes / num_buckets(round(work.size_bytes), nodes)
        last_s = 2 * (nodes - 1) * bucket_bytes / network.bytes_per_s
        end_s = max(end_s, work.parts[-1].ready_s + last_s)
    latency_s = rounds_of(scheme, nodes) * network.latency_s
    return _step(work, end_s + latency_s, work.size_bytes * s_per_byte + latency_s, scheme)


def best_step(work: Work, network: Network, nodes: int, *, crowding: float = 1.0) -> Step:
    """Forecast a step by the faster one of our schemes."""
    steps = [step_of(work, network, nodes, scheme, crowding=crowding) for scheme in OURS]
    return min(steps, key=lambda step: step.seconds)


def _step(work: Work, end_s: float, exchange_s: float, scheme: Scheme) -> Step:
    return Step(
        shards_s=work.shards_s,
        node_sum_s=work.node_sum_s,
        exposed_s=max(end_s - work.shards_s - work.node_sum_s, 0.0),
        update_s=work.update_s,
        exchange_s=exchange_s,
        scheme=scheme,
    )


def slowest_of(number: int, deviation: float) -> float:
    """Tell how many times longer than the mean the slowest of so many takes, when times are normal.

    deviation: relative to the mean.  The expected largest of normal numbers, as Blom (1958) has it.
    """
    if number == 1:
        return 1.0
    return 1 + deviation * NormalDist().inv_cdf((number - 0.375) / (number + 0.25))

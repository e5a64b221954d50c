"""The cost model: how long a step takes on so many nodes, from what one of them computes and what messages cost.

    step = shards of the slowest node + its sums + what of the exchange is not hidden + update

What a node computes is measured or stated; only the exchange is modelled. Gradients leave while backward still runs, so
a message waits for what it carries and for the link, which carries one at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, log2
from statistics import NormalDist
from typing import Literal, cast

from dist_relu.comm.buckets import cuttings, num_buckets
from dist_relu.partition import SummationTree, bounds
from dist_relu.scaling.network import Network

Scheme = Literal["owners", "halving", "doubling", "ring"]
"""How gradients are added over nodes.

owners: each part goes to a node that adds it and sends the sum back.  halving: recursive halving and doubling (Thakur
et al. 2005), in log2(nodes) rounds each way.  doubling: in log2(nodes) rounds of whole gradients.  ring: in nodes - 1
rounds each way (Patarasuk and Yuan 2009); training has all but that.
"""


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What a scheme makes of a gradient.

    buckets: in which it travels.  rounds: so many messages of a bucket follow one another.  messages: which the busiest
    node sends in a step.  share: how often the gradient leaves it, or arrives there.
    """

    scheme: Scheme
    buckets: int
    rounds: int
    messages: float
    share: float


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
        if share == 1:
            return self
        return replace(self, parts=[replace(part, size_bytes=part.size_bytes * share) for part in self.parts])

    def slowed(self, factor: float) -> Work:
        """Return the same where everything takes so many times as long."""
        if factor == 1:
            return self
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


@lru_cache(maxsize=1024)
def traffic_of_training(size_bytes: int, nodes: int, shards: int, workers_per_node: int = 1) -> Traffic:
    """Tell what training does, which chooses its way from sizes and numbers alone.

    A node whose shards are no whole subtree of the summation tree sends several partial sums, so it matters how many
    shards there are.
    """
    tree = SummationTree(shards)
    places = bounds(shards, nodes * workers_per_node)
    ends = [
        (places[first][0], places[first + workers_per_node - 1][1]) for first in range(0, len(places), workers_per_node)
    ]
    held = [tree.fold(tree.leaves(start, stop))[1] for start, stop in ends]
    name, cutting = min(cuttings(size_bytes, tree, held).items(), key=lambda item: item[1].seconds)
    return Traffic(
        scheme=cast(Scheme, name),
        buckets=cutting.num_buckets,
        rounds=cutting.rounds,
        messages=cutting.messages / 2,
        share=cutting.share,
    )


def traffic_of_scheme(scheme: Scheme, work: Work, nodes: int) -> Traffic:
    """Tell what a scheme does as books have it, when each node has one partial sum of everything.

    But for doubling, 2·(nodes - 1)/nodes of the gradient leave a node, which is the least that there is. Where nodes
    are no power of two, halving first folds those that are too many into others, which carries all of it once more each
    way.
    """
    levels = ceil(log2(nodes))
    rounds = {"owners": 2, "halving": 2 * levels, "doubling": levels, "ring": 2 * (nodes - 1)}[scheme]
    share = 2 * (nodes - 1) / nodes + (scheme == "halving" and nodes & (nodes - 1) > 0)
    buckets, messages = len(work.parts), float(rounds * len(work.parts))
    if scheme == "owners":
        buckets = num_buckets(round(work.size_bytes), nodes)
        messages = 2 * (nodes - 1) * buckets / nodes
    return Traffic(
        scheme=scheme,
        buckets=buckets,
        rounds=rounds,
        messages=messages,
        share=levels if scheme == "doubling" else share,
    )


def step_of(work: Work, network: Network, nodes: int, traffic: Traffic, *, crowding: float = 1.0) -> Step:
    """Forecast a step.

    Messages take time of the core that computes: what it does for those that are under way is not hidden, so the last
    one ends when that core has computed everything and seen to all messages, at the earliest.
    crowding: how many workers share a core, where hosts are no machines of their own; all that cores do takes so many
    times as long then.
    """
    work = work.slowed(crowding)
    if nodes == 1:
        return _step(work, 0.0, 0.0, traffic.scheme)
    core_s_per_byte = crowding * (
        traffic.share * network.cpu_s_per_byte + traffic.messages * network.message_s / work.size_bytes
    )
    s_per_byte = max(traffic.share / network.bytes_per_s, core_s_per_byte)
    end_s = num_bytes = lost_s = 0.0
    for part in work.parts:
        ready_s = part.ready_s + lost_s
        carried = num_bytes - max(end_s - ready_s, 0.0) / s_per_byte
        lost_s = max(lost_s, carried * core_s_per_byte)
        end_s = max(end_s, part.ready_s + lost_s) + part.size_bytes * s_per_byte
        num_bytes += part.size_bytes
    end_s = max(end_s, work.parts[-1].ready_s + work.size_bytes * core_s_per_byte)
    if traffic.scheme == "owners":  # of the last bucket its owner gets what all others have, and sends them what it is
        last_s = nodes * traffic.share * work.size_bytes / traffic.buckets / network.bytes_per_s
        end_s = max(end_s, work.parts[-1].ready_s + lost_s + last_s)
    latency_s = traffic.rounds * network.latency_s
    return _step(work, end_s + latency_s, work.size_bytes * s_per_byte + latency_s, traffic.scheme)


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

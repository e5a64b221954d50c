"""The exchange, message by message: what a formula can't say, since nodes are late, links are taken, and some fail.

An event is a message of the same round from every node that sends one, so that thousands of nodes take milliseconds:
the heap has rounds, and whatever differs between nodes is in arrays (nodes,). A link carries one message at a time each
way.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.scaling.cost import Traffic, Work, traffic_of_scheme
from dist_relu.scaling.network import Network

_S_PER_H = 3600.0


@dataclass(frozen=True, kw_only=True)
class Failures:
    """Nodes fail at any time, and the step is done again by all.

    mean_hours: between two failures of the same node.  recovery_s: until all go on.
    """

    mean_hours: float
    recovery_s: float


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """What was simulated.

    step_seconds: of every step, without what failures took.  num_failures: so many nodes failed.  total_s: all of it.
    """

    step_seconds: Sequence[float]
    num_failures: int
    total_s: float

    @property
    def mean_s(self) -> float:
        """The mean of a step, failures included."""
        return self.total_s / len(self.step_seconds)


def simulate(
    work: Work,
    network: Network,
    nodes: int,
    traffic: Traffic,
    *,
    noise: Sequence[float] = (1.0,),
    failures: Failures | None = None,
    steps: int = 20,
    seed: int = 0,
) -> Simulated:
    """Simulate steps.

    traffic: where a node sends more than the scheme's least, all messages are larger by as much.
    noise: how many times as long as usual a node's work took in steps that were measured; each node draws one of them
    for each step.
    """
    rng = np.random.default_rng(seed)
    exchange = _Exchange(work, network, nodes, traffic)
    now = np.zeros(nodes)
    ends, num_failures, lost_s = [0.0], 0, 0.0
    while len(ends) <= steps:
        slowness = rng.choice(np.asarray(noise, float), nodes)
        summed = exchange.run(now, slowness) if nodes > 1 else now + work.shards_s * slowness
        after = np.maximum(summed, now + (work.shards_s + work.node_sum_s) * slowness) + work.update_s * slowness
        if failures:
            step_s = float(after.max() - now.max())
            num_failed = int(rng.poisson(nodes * step_s / (failures.mean_hours * _S_PER_H)))
            num_failures += num_failed
            lost_s += num_failed * (failures.recovery_s + step_s / 2)  # half of the step was done, on average
        now = after
        ends.append(float(now.max()))
    return Simulated(step_seconds=np.diff(ends).tolist(), num_failures=num_failures, total_s=ends[-1] + lost_s)


_Round = Callable[[], None]


@final
class _Exchange:
    """The links of all nodes, and what is under way on them in a step.

    busy_out, busy_in: (nodes,), until when a link is taken.  summed: (nodes,), when the last sum was there.
    """

    def __init__(self, work: Work, network: Network, nodes: int, traffic: Traffic) -> None:
        if nodes > 1:
            work = work.sending(traffic.share / traffic_of_scheme(traffic.scheme, work, nodes).share)
        self._work, self._network, self._nodes, self._num_buckets = work, network, nodes, traffic.buckets
        self._begin = {
            "owners": self._begin_owned,
            "halving": self._begin_halving,
            "doubling": self._begin_doubling,
        }[traffic.scheme]
        self._rounds: list[tuple[float, int, _Round]] = []
        self._num_rounds = 0

    def run(self, began: Array, slowness: Array) -> Array:
        """Tell when every node has all sums.  began: when each has begun with the step."""
        self.busy_out, self.busy_in, self.summed = began.copy(), began.copy(), began.copy()
        self._begin(began, slowness)
        while self._rounds:
            _, _, take = heapq.heappop(self._rounds)
            take()
        return self.summed

    def _at(self, time_s: float, take: _Round) -> None:
        self._num_rounds += 1  # of two at the same time, the one that was planned first
        heapq.heappush(self._rounds, (time_s, self._num_rounds, take))

    def _seconds(self, size_bytes: float) -> float:
        return max(size_bytes / self._network.bytes_per_s, self._network.message_s)

    # Each part goes to the node that owns it, which sends its sum back.

    def _begin_owned(self, began: Array, slowness: Array) -> None:
        parts = self._work.parts
        of_each = -(-self._num_buckets // len(parts))
        number = 0
        for part in parts:
            ready = began + part.ready_s * slowness
            for _ in range(of_each):
                self._gather(number % self._nodes, ready, self._seconds(part.size_bytes / of_each))
                number += 1

    def _gather(self, owner: int, ready: Array, seconds: float) -> None:
        def take() -> None:
            left = np.maximum(ready, self.busy_out) + seconds
            left[owner] = self.busy_out[owner]
            self.busy_out[:] = left
            arriving = np.sort(np.delete(left, owner)) + self._network.latency_s
            turns = np.arange(len(arriving)) * seconds
            taken = np.maximum(np.maximum.accumulate(arriving - turns), self.busy_in[owner] + seconds) + turns
            self.busy_in[owner] = taken[-1]
            self._send_back(owner, max(float(taken[-1]), float(ready[owner])), seconds)

        self._at(float(ready.min()), take)

    def _send_back(self, owner: int, summed_s: float, seconds: float) -> None:
        def take() -> None:
            others = np.roll(np.arange(self._nodes), -owner)[1:]
            left = max(summed_s, self.busy_out[owner]) + seconds * np.arange(1, self._nodes)
            self.busy_out[owner] = left[-1]
            there = np.maximum(left + self._network.latency_s, self.busy_in[others] + seconds)
            self.busy_in[others] = there
            self.summed[others] = np.maximum(self.summed[others], there)
            self.summed[owner] = max(self.summed[owner], summed_s)

        self._at(summed_s, take)

    # Doubling: in every round each node sends all that it has, and gets as much.

    def _begin_doubling(self, began: Array, slowness: Array) -> None:
        for part in self._work.parts:
            ready = began + part.ready_s * slowness
            self._at(float(ready.min()), lambda have=ready, size=part.size_bytes: self._double(have, 1, size))  # type: ignore[misc]

    def _double(self, have: Array, distance: int, size_bytes: float) -> None:
        everyone = np.arange(self._nodes)
        self._pass_on(have, everyone, (everyone + distance) % self._nodes, size_bytes)
        if 2 * distance < self._nodes:
            self._at(float(have.min()), lambda: self._double(have, 2 * distance, size_bytes))
        else:
            self.summed[:] = np.maximum(self.summed, have)

    # Halving and doubling: partners exchange halves, quarters, ... and then ..., quarters, halves.

    def _begin_halving(self, began: Array, slowness: Array) -> None:
        for part in self._work.parts:
            ready = began + part.ready_s * slowness
            self._at(float(ready.min()), lambda have=ready, size=part.size_bytes: self._halve(have, size))  # type: ignore[misc]

    def _halve(self, have: Array, size_bytes: float) -> None:
        """Begin with a part: nodes beyond a power of two hand theirs over, and get the sum in the end."""
        levels = self._nodes.bit_length() - 1
        most = 1 << levels
        beyond = np.arange(most, self._nodes)
        sizes = [size_bytes / 2 ** (level + 1) for level in range(levels)]
        rounds = [(1 << level, sizes[level]) for level in range(levels)]
        have = have.copy()
        if len(beyond):
            self._pass_on(have, beyond, beyond - most, size_bytes)
        self._exchange_rounds(have, [*rounds, *reversed(rounds)], size_bytes)

    def _exchange_rounds(self, have: Array, rounds: Sequence[tuple[int, float]], size_bytes: float) -> None:
        most = 1 << (self._nodes.bit_length() - 1)
        if not rounds:
            beyond = np.arange(most, self._nodes)
            if len(beyond):
                self._pass_on(have, beyond - most, beyond, size_bytes)
            self.summed[:] = np.maximum(self.summed, have)
            return
        (distance, size), *rest = rounds

        def take() -> None:
            everyone = np.arange(most)
            self._pass_on(have, everyone, everyone ^ distance, size)
            self._exchange_rounds(have, rest, size_bytes)

        self._at(float(have[:most].min()), take)

    def _pass_on(self, have: Array, senders: Array, receivers: Array, size_bytes: float) -> None:
        """Let senders send when they have something; receivers have it when it is there, beside what they had."""
        seconds = self._seconds(size_bytes)
        left = np.maximum(have[senders], self.busy_out[senders]) + seconds
        self.busy_out[senders] = left
        there = np.maximum(left + self._network.latency_s, self.busy_in[receivers] + seconds)
        self.busy_in[receivers] = there
        have[receivers] = np.maximum(have[receivers], there)

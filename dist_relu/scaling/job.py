"""What a job on so many nodes of a cluster does in a step, from what one worker does and what messages cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Self, final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.scaling.cost import Part, Step, Traffic, Work, step_of, traffic_of_training
from dist_relu.scaling.grid import Point, own_share
from dist_relu.scaling.network import Network
from dist_relu.scaling.profile import Profile


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where training would run.

    workers_per_node: each on a core of its own.  shared_cores: all nodes have so many together, as the hosts of a test
    network on one machine; None: each has its own.  sent: the share of their bytes that gradients take on the wire, as
    if they were compressed; what that would take to compute is left out.
    """

    network: Network
    workers_per_node: int = 1
    shared_cores: int | None = None
    sent: float = 1.0

    def crowding(self, nodes: int) -> float:
        """Tell how many workers share a core."""
        if self.shared_cores is None:
            return 1.0
        return max(nodes * self.workers_per_node / self.shared_cores, 1.0)


@dataclass(frozen=True, kw_only=True)
class Job:
    """Training in the series of a point, on so many nodes of a cluster."""

    point: Point
    nodes: int
    cluster: Cluster

    @property
    def workers(self) -> int:
        return self.nodes * self.cluster.workers_per_node

    @property
    def rows_of_one(self) -> int:
        """Count the rows of one worker that is the only one."""
        return self.point.batch_size // (self.point.workers if self.point.regime == "weak" else 1)

    @property
    def batch_size(self) -> int:
        return self.rows_of_one * (self.workers if self.point.regime == "weak" else 1)

    @property
    def rows(self) -> int:
        """Count the rows of the worker that has most."""
        return own_share(self.point, self.workers)[0]

    @property
    def shards(self) -> int:
        """Count the shards, of which each worker has one at least."""
        if self.point.regime == "weak":
            return self.point.shards // self.point.workers * self.workers
        return max(self.point.shards, self.workers)

    @property
    def crowding(self) -> float:
        return self.cluster.crowding(self.nodes)

    def at_once(self, profiles: Sequence[Profile]) -> int:
        """Tell which profiles say most: of as many workers at once as share a machine, where there are some."""
        together = self.workers if self.cluster.shared_cores else self.cluster.workers_per_node
        model = self.point.model
        return together if any((model, together) == (one.share.model, one.share.at_once) for one in profiles) else 1

    def profiled(self, profiles: Sequence[Profile], rng: np.random.Generator | None = None) -> Profiled:
        """Tell what its workers do.  rng: see `Profiled.of`, which also says what is raised."""
        return Profiled.of(self.point.model, self.rows_of_one, profiles, self.at_once(profiles), rng)

    def work(self, profiled: Profiled, rows: float) -> Work:
        """Tell what a node does in a step."""
        return profiled.work(rows, self.nodes, self.cluster.workers_per_node).sending(self.cluster.sent)

    def traffic(self, profiled: Profiled) -> Traffic:
        """Tell what is sent, which depends on how many bytes gradients take on the wire."""
        size_bytes = round(profiled.size_bytes * self.cluster.sent)
        return traffic_of_training(size_bytes, self.nodes, self.shards, self.cluster.workers_per_node)

    def step(self, profiled: Profiled, rows: float) -> Step:
        return step_of(
            self.work(profiled, rows), self.cluster.network, self.nodes, self.traffic(profiled), crowding=self.crowding
        )


@final
class Profiled:
    """What workers of a model do in a step, for any number of rows: measured at some, and on lines between these."""

    def __init__(
        self, alone: _Curve, numbers: _Curve, ready: _Curve, sizes: Sequence[float], slowdowns: Sequence[float]
    ) -> None:
        """alone: (), the step of one worker that is the only one, in s.  numbers: (3,), of one of two nodes, see
        `_numbers`.  ready: (parts,), in s.  sizes: of parts.  slowdowns: how many times as long a step takes beside
        others, of a worker that is on the only node, and of one of several nodes.
        """
        self._alone, self._numbers, self._ready, self._sizes = alone, numbers, ready, sizes
        self._slowdowns = slowdowns

    @classmethod
    def of(
        cls,
        model: str,
        rows: int,
        profiles: Sequence[Profile],
        at_once: int = 1,
        rng: np.random.Generator | None = None,
    ) -> Self:
        """Gather the profiles of a model.

        rows: of the worker that does all.  at_once: of so many workers on one machine.  rng: draw repetitions, for
        intervals.  Raises ValueError where there is none.
        """
        alone, one_of_two = (_by_rows(model, nodes, 1, rows, profiles, rng) for nodes in (1, 2))
        if rows not in alone or not one_of_two:
            raise ValueError(f"There is no profile of {model} with {rows} rows. Measure it: dist-relu scale.")
        slowdowns = [1.0, 1.0]
        if at_once > 1:
            slowdowns = [
                _slowdown(_by_rows(model, nodes, at_once, rows, profiles, rng), by_rows)
                for nodes, by_rows in ((1, alone), (2, one_of_two))
            ]
        sizes = [part.size_bytes for part in next(iter(one_of_two.values()))[0].parts]
        return cls(
            _Curve.of(alone, _step_s),
            _Curve.of(one_of_two, _numbers),
            _Curve.of(one_of_two, lambda one: _ready_s(one, sizes)),
            sizes,
            slowdowns,
        )

    @property
    def size_bytes(self) -> float:
        """Of the gradient."""
        return sum(self._sizes)

    def work(self, rows: float, nodes: int, workers: int) -> Work:
        """Tell what the workers of each node do in a step, so many of them, each with so many rows.

        The update is shared by them. The sums are, too, but of as many more rows.
        """
        step_s, node_sum_s, _ = self._numbers.at(rows)
        ready = self._ready.at(rows)
        end_s = float(ready[-1])
        update_s = max(float(step_s) - end_s, 0.0)
        if nodes == 1:  # nothing leaves, and the update adds what the workers have left
            alone_s = self.one_worker_s(rows)
            update_s = min(update_s, alone_s)
            work = Work(parts=(), shards_s=alone_s - update_s, update_s=update_s / workers)
            return work.slowed(self._slowdowns[0])
        return Work(
            parts=[Part(ready_s=float(at), size_bytes=size) for at, size in zip(ready, self._sizes, strict=True)],
            shards_s=end_s - float(node_sum_s),
            node_sum_s=float(node_sum_s),
            update_s=update_s / workers,
        ).slowed(self._slowdowns[1])

    def one_worker_s(self, rows: float) -> float:
        """Tell how long a step of so many rows takes on one worker, without an exchange."""
        return float(self._alone.at(rows))

    def node_bytes(self, rows: float) -> int:
        """Tell how much memory a node shares whose workers have so many rows together."""
        return int(self._numbers.at(rows)[2])


@final
class _Curve:
    """Values (K, ...) at so many rows, ascending."""

    def __init__(self, rows: Sequence[int], values: Array) -> None:
        self._rows, self._values = np.asarray(rows, float), values

    @classmethod
    def of(cls, by_rows: Mapping[int, Sequence[Profile]], read: Callable[[Profile], float | list[float]]) -> Self:
        """Read values off profiles, and take the medians of repetitions."""
        return cls(
            list(by_rows), np.array([np.median([read(one) for one in found], axis=0) for found in by_rows.values()])
        )

    def at(self, rows: float) -> Array:
        """Return the values at so many rows, on lines between those measured, and on the last ones beyond."""
        if len(self._rows) == 1:
            alone: Array = self._values[0] * (rows / self._rows[0])
            return alone
        i = int(np.clip(np.searchsorted(self._rows, rows), 1, len(self._rows) - 1))
        share = (rows - self._rows[i - 1]) / (self._rows[i] - self._rows[i - 1])
        found: Array = np.maximum(self._values[i - 1] + share * (self._values[i] - self._values[i - 1]), 0.0)
        return found


def _by_rows(
    model: str, nodes: int, at_once: int, most_rows: int, profiles: Sequence[Profile], rng: np.random.Generator | None
) -> dict[int, list[Profile]]:
    """Gather the profiles of workers of so many nodes by their rows, ascending; `rng` draws among repetitions."""
    found: dict[int, list[Profile]] = {}
    for one in profiles:
        if (one.share.model, one.share.nodes, one.share.at_once) == (model, nodes, at_once) and (
            one.share.rows <= most_rows
        ):
            found.setdefault(one.share.rows, []).append(one)
    return {rows: _drawn(several, rng) for rows, several in sorted(found.items())}


def _slowdown(beside_others: Mapping[int, Sequence[Profile]], alone: Mapping[int, Sequence[Profile]]) -> float:
    """Tell how many times as long a step takes beside other workers as alone."""
    steps = _Curve.of(alone, _step_s)
    times = [_step_s(one) / float(steps.at(rows)) for rows, found in beside_others.items() for one in found]
    return float(np.median(times)) if times else 1.0


def _drawn(found: Sequence[Profile], rng: np.random.Generator | None) -> list[Profile]:
    return list(found) if rng is None else [found[i] for i in rng.integers(len(found), size=len(found))]


def _step_s(one: Profile) -> float:
    return float(median(one.step_seconds))


def _ready_s(one: Profile, sizes: Sequence[float]) -> list[float]:
    """Tell when parts of these sizes would leave; it may have cut the gradient otherwise, as shards have it."""
    ends, wanted = (np.cumsum(of) for of in ([part.size_bytes for part in one.parts], sizes))
    carriers = np.searchsorted(ends, np.minimum(wanted, ends[-1]))
    return [one.parts[carrier].ready_s for carrier in carriers]


def _numbers(one: Profile) -> list[float]:
    """Return how long the step takes without an exchange, the sums of its last parts, and how much memory."""
    return [_step_s(one), one.node_sum_s, float(one.node_bytes)]

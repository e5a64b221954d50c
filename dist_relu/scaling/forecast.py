"""Forecasts: steps on numbers of nodes that nobody has, from what one worker does and what messages cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import Any, Self, final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.scaling.cost import Part, Step, Work, best_step
from dist_relu.scaling.grid import Point, Series
from dist_relu.scaling.intervals import Interval
from dist_relu.scaling.network import Network
from dist_relu.scaling.profile import Profile
from dist_relu.scaling.simulation import Failures, Simulated, simulate

_RESAMPLES = 200
_TAIL_PERCENT = 2.5
_GOOD_EFFICIENCY = 0.8
_NOTHING_LIMITS = 0.95
_MOST_ROWS = 2**24


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
class Forecast:
    """What is to be expected on so many nodes.

    rows: of the worker that has most.  seconds, speed_up, efficiency: with 95 % intervals, beside one worker of the
    same kind.  limit: what keeps it from the ideal speed-up, in words.  enough_batch: the smallest batch, over all
    nodes, with which efficiency is 80 %; None where none is large enough, and for one worker.  node_bytes: memory that
    a node shares.
    """

    nodes: int
    workers: int
    batch_size: int
    rows: int
    step: Step
    seconds: Interval
    speed_up: Interval
    efficiency: Interval
    limit: str
    enough_batch: int | None
    node_bytes: int

    @property
    def samples_per_second(self) -> float:
        return self.batch_size / self.seconds.value

    def cost_per_million(self, price: float) -> float:
        """Tell what a million samples cost.  price: of a node for an hour."""
        return price * self.nodes * 1e6 / self.samples_per_second / 3600

    def as_json(self, price: float | None = None) -> dict[str, Any]:
        costs = {} if price is None else {"hour": price * self.nodes, "million_samples": self.cost_per_million(price)}
        return {**asdict(self), "samples_per_second": self.samples_per_second, **({"price": costs} if costs else {})}


@final
class Profiled:
    """What workers of a model do in a step, for any number of rows: measured at some, and on lines between these.

    alone_s: the step of one worker with all rows, without an exchange.
    """

    def __init__(
        self, rows: Sequence[int], numbers: Array, ready: Array, sizes: Sequence[float], alone_s: float
    ) -> None:
        """rows: (K,), ascending.  numbers: (K, 3), see `_numbers`.  ready: (K, parts), in s.  sizes: of parts."""
        self._rows, self._numbers, self._ready, self._sizes = np.asarray(rows, float), numbers, ready, sizes
        self.alone_s = alone_s

    @classmethod
    def of(cls, model: str, rows: int, profiles: Sequence[Profile], rng: np.random.Generator | None = None) -> Self:
        """Gather the profiles of a model.  rows: of the worker that does all.  rng: draw repetitions, for intervals.

        Raises ValueError where there is none.
        """
        of_model = [one for one in profiles if one.share.model == model]
        alone = [one for one in of_model if one.share.nodes == 1 and one.share.rows == rows]
        by_rows: dict[int, list[Profile]] = {}
        for one in of_model:
            if one.share.nodes == 2 and one.share.rows <= rows:
                by_rows.setdefault(one.share.rows, []).append(one)
        if not alone or not by_rows:
            raise ValueError(f"There is no profile of {model} with {rows} rows. Measure it: dist-relu scale.")
        drawn = {number: _drawn(found, rng) for number, found in sorted(by_rows.items())}
        numbers = np.array([np.median([_numbers(one) for one in found], axis=0) for found in drawn.values()])
        ready = np.array(
            [np.median([[part.ready_s for part in one.parts] for one in found], axis=0) for found in drawn.values()]
        )
        alone_s = float(np.median([np.median(one.step_seconds) for one in _drawn(alone, rng)]))
        return cls(
            list(drawn), numbers, ready, [part.size_bytes for part in next(iter(drawn.values()))[0].parts], alone_s
        )

    def work(self, rows: float, workers: int) -> Work:
        """Tell what the workers of a node do in a step, so many of them, each with so many rows.

        The update is shared by them. The sums are, too, but of as many more rows.
        """
        step_s, node_sum_s, _ = self._at(self._numbers, rows)
        ready = self._at(self._ready, rows)
        end_s = float(ready[-1])
        return Work(
            parts=[Part(ready_s=float(at), size_bytes=size) for at, size in zip(ready, self._sizes, strict=True)],
            shards_s=end_s - float(node_sum_s),
            node_sum_s=float(node_sum_s),
            update_s=max(float(step_s) - end_s, 0.0) / workers,
        )

    def one_worker_s(self, rows: float) -> float:
        """Tell how long a step of so many rows takes on one worker, without an exchange."""
        here = self._at(self._numbers, float(self._rows[-1]))[0]
        return float(self.alone_s * self._at(self._numbers, rows)[0] / here)

    def node_bytes(self, rows: float) -> int:
        """Tell how much memory a node shares whose workers have so many rows together."""
        return int(self._at(self._numbers, rows)[2])

    def _at(self, values: Array, rows: float) -> Array:
        """Take values (K, ...) at so many rows, on lines between those measured, and on the last ones beyond."""
        if len(self._rows) == 1:
            alone: Array = values[0] * (rows / self._rows[0])
            return alone
        i = int(np.clip(np.searchsorted(self._rows, rows), 1, len(self._rows) - 1))
        share = (rows - self._rows[i - 1]) / (self._rows[i] - self._rows[i - 1])
        found: Array = np.maximum(values[i - 1] + share * (values[i] - values[i - 1]), 0.0)
        return found


def _drawn(found: Sequence[Profile], rng: np.random.Generator | None) -> list[Profile]:
    return list(found) if rng is None else [found[i] for i in rng.integers(len(found), size=len(found))]


def _numbers(one: Profile) -> list[float]:
    """Return how long the step takes without an exchange, the sums of its last parts, and how much memory."""
    return [float(np.median(one.step_seconds)), one.node_sum_s, float(one.node_bytes)]


def forecast(
    point: Point, profiles: Sequence[Profile], cluster: Cluster, nodes: Sequence[int], seed: int = 0
) -> list[Forecast]:
    """Forecast the series of a point on these numbers of nodes; those are left out for which a batch has no samples.

    point: any of the series; "strong" for the same batch on all, "weak" for one that grows with the workers.
    Raises ValueError where nothing of its model was measured.
    """
    rows = point.batch_size // (point.workers if point.regime == "weak" else 1)
    typical = Profiled.of(point.model, rows, profiles)
    rng = np.random.default_rng(seed)
    drawn = [Profiled.of(point.model, rows, profiles, rng) for _ in range(_RESAMPLES)]
    found = []
    for number in sorted(set(nodes)):
        workers = number * cluster.workers_per_node
        batch_size = rows * (workers if point.regime == "weak" else 1)
        if batch_size < workers:
            continue
        own = rows if point.regime == "weak" else _own_rows(batch_size, point.shards, workers)
        step = _step(typical, own, number, cluster)
        seconds = [_step(each, own, number, cluster).seconds for each in drawn]
        ones = [each.one_worker_s(rows) for each in drawn]
        more = batch_size / rows
        one_s = typical.one_worker_s(rows)
        speed_up = _interval(one_s / step.seconds * more, np.divide(ones, seconds) * more)
        found.append(
            Forecast(
                nodes=number,
                workers=workers,
                batch_size=batch_size,
                rows=own,
                step=step,
                seconds=_interval(step.seconds, np.array(seconds)),
                speed_up=speed_up,
                efficiency=speed_up * (1 / workers),
                limit=_limit(typical, own, number, cluster, one_s * more / workers),
                enough_batch=_enough_batch(typical, number, cluster) if workers > 1 else None,
                node_bytes=typical.node_bytes(own * cluster.workers_per_node),
            )
        )
    return found


def _own_rows(batch_size: int, shards: int, workers: int) -> int:
    """Count the rows of the worker that has most; more workers than shards need more shards."""
    shards = max(shards, workers)
    return min(ceil(shards / workers) * ceil(batch_size / shards), batch_size)


def _step(profiled: Profiled, rows: float, nodes: int, cluster: Cluster) -> Step:
    return best_step(_work(profiled, rows, nodes, cluster), cluster.network, nodes, crowding=cluster.crowding(nodes))


def _work(profiled: Profiled, rows: float, nodes: int, cluster: Cluster) -> Work:
    """Tell what a node does in a step; one worker alone was measured as such."""
    work = profiled.work(rows, cluster.workers_per_node).sending(cluster.sent)
    is_alone = nodes * cluster.workers_per_node == 1
    return work.slowed(profiled.one_worker_s(rows) / work.seconds) if is_alone else work


def _interval(value: float, drawn: Array) -> Interval:
    low, high = np.percentile(drawn, [_TAIL_PERCENT, 100 - _TAIL_PERCENT])
    return Interval(value, float(min(low, value)), float(max(high, value)))


def _limit(profiled: Profiled, rows: float, nodes: int, cluster: Cluster, ideal_s: float) -> str:
    """Name what costs most of the time that is lost beside the ideal speed-up."""
    step = _step(profiled, rows, nodes, cluster)
    if ideal_s / step.seconds >= _NOTHING_LIMITS:
        return "nothing"
    at_once = Cluster(
        network=Network(name="", latency_s=0.0, bytes_per_s=cluster.network.bytes_per_s, message_s=0.0),
        workers_per_node=cluster.workers_per_node,
        shared_cores=cluster.shared_cores,
        sent=cluster.sent,
    )
    of_bytes_s = _step(profiled, rows, nodes, at_once).exposed_s
    lost: Mapping[str, float] = {
        "small shards": step.shards_s + step.node_sum_s - ideal_s,
        "update": step.update_s,
        "bandwidth": of_bytes_s,
        "latency": step.exposed_s - of_bytes_s,
    }
    if cluster.crowding(nodes) > 1:
        lost = {"shared cores": step.seconds - step.exposed_s - ideal_s, **lost}
    return max(lost, key=lambda name: lost[name])


def _enough_batch(profiled: Profiled, nodes: int, cluster: Cluster) -> int | None:
    """Find the smallest batch with which workers are efficient enough, by bisection over the rows of each."""
    workers = nodes * cluster.workers_per_node

    def is_enough(rows: int) -> bool:
        seconds = _step(profiled, rows, nodes, cluster).seconds
        return profiled.one_worker_s(rows * workers) >= _GOOD_EFFICIENCY * workers * seconds

    low, high = 0, 1
    while not is_enough(high):
        low, high = high, 2 * high
        if high > _MOST_ROWS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high * workers


def simulated(
    point: Point,
    profiles: Sequence[Profile],
    cluster: Cluster,
    found: Forecast,
    *,
    steps: int,
    failures: Failures | None = None,
    seed: int = 0,
) -> Simulated:
    """Simulate what was forecast, with nodes that are as late as the worker was whose steps were measured."""
    crowding = cluster.crowding(found.nodes)
    one_rows = found.batch_size // (found.workers if point.regime == "weak" else 1)
    work = _work(Profiled.of(point.model, one_rows, profiles), found.rows, found.nodes, cluster)
    network = cluster.network
    if network.cpu_s_per_byte:
        slowest = min(network.bytes_per_s, 1 / (network.cpu_s_per_byte * crowding))
        network = replace(network, bytes_per_s=slowest)
    return simulate(
        work.slowed(crowding),
        network,
        found.nodes,
        found.step.scheme,
        noise=_noise(point.model, found.rows, profiles),
        failures=failures,
        steps=steps,
        seed=seed,
    )


def _noise(model: str, rows: int, profiles: Sequence[Profile]) -> list[float]:
    """Return how many times as long as usual steps took, of the share that is nearest to so many rows."""
    of_model = [one for one in profiles if one.share.model == model and one.share.nodes == 2]
    nearest = min(abs(one.share.rows - rows) for one in of_model)
    times = [np.array(one.step_seconds) for one in of_model if abs(one.share.rows - rows) == nearest]
    return [float(time / np.median(each)) for each in times for time in each]


def series_points(points: Sequence[Point]) -> list[Point]:
    """List one point of each series."""
    found: dict[Series, Point] = {}
    for point in points:
        found.setdefault(point.series, point)
    return list(found.values())

"""Forecasts: steps on numbers of nodes that nobody has, from what one worker does and what messages cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import Any, Self, final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.scaling.cost import Part, Step, Traffic, Work, step_of, traffic_of_training
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
    """What workers of a model do in a step, for any number of rows: measured at some, and on lines between these."""

    def __init__(self, alone: _Curve, numbers: _Curve, ready: _Curve, sizes: Sequence[float]) -> None:
        """alone: (), the step of one worker that is the only one, in s.  numbers: (3,), of one of two nodes, see
        `_numbers`.  ready: (parts,), in s.  sizes: of parts.
        """
        self._alone, self._numbers, self._ready, self._sizes = alone, numbers, ready, sizes

    @classmethod
    def of(cls, model: str, rows: int, profiles: Sequence[Profile], rng: np.random.Generator | None = None) -> Self:
        """Gather the profiles of a model.  rows: of the worker that does all.  rng: draw repetitions, for intervals.

        Raises ValueError where there is none.
        """
        alone = _by_rows(model, 1, rows, profiles, rng)
        one_of_two = _by_rows(model, 2, rows, profiles, rng)
        if rows not in alone or not one_of_two:
            raise ValueError(f"There is no profile of {model} with {rows} rows. Measure it: dist-relu scale.")
        return cls(
            _Curve.of(alone, lambda one: float(np.median(one.step_seconds))),
            _Curve.of(one_of_two, _numbers),
            _Curve.of(one_of_two, lambda one: [part.ready_s for part in one.parts]),
            [part.size_bytes for part in next(iter(one_of_two.values()))[0].parts],
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
            return Work(parts=(), shards_s=alone_s - update_s, update_s=update_s / workers)
        return Work(
            parts=[Part(ready_s=float(at), size_bytes=size) for at, size in zip(ready, self._sizes, strict=True)],
            shards_s=end_s - float(node_sum_s),
            node_sum_s=float(node_sum_s),
            update_s=update_s / workers,
        )

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
    model: str, nodes: int, most_rows: int, profiles: Sequence[Profile], rng: np.random.Generator | None
) -> dict[int, list[Profile]]:
    """Gather the profiles of workers of so many nodes by their rows, ascending; `rng` draws among repetitions."""
    found: dict[int, list[Profile]] = {}
    for one in profiles:
        if one.share.model == model and one.share.nodes == nodes and one.share.rows <= most_rows:
            found.setdefault(one.share.rows, []).append(one)
    return {rows: _drawn(several, rng) for rows, several in sorted(found.items())}


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
        shards = _shards(point, workers)
        own = rows if point.regime == "weak" else _own_rows(batch_size, shards, workers)
        job = _Job(nodes=number, shards=shards, cluster=cluster)
        step = job.step(typical, own)
        seconds = [job.step(each, own).seconds for each in drawn]
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
                limit=_limit(typical, own, job, one_s * more / workers),
                enough_batch=_enough_batch(typical, job) if workers > 1 else None,
                node_bytes=typical.node_bytes(own * cluster.workers_per_node),
            )
        )
    return found


@dataclass(frozen=True, kw_only=True)
class _Job:
    """Training on so many nodes of a cluster, with so many shards."""

    nodes: int
    shards: int
    cluster: Cluster

    @property
    def workers(self) -> int:
        return self.nodes * self.cluster.workers_per_node

    @property
    def crowding(self) -> float:
        return self.cluster.crowding(self.nodes)

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


def _shards(point: Point, workers: int) -> int:
    """Tell how many shards a point has on so many workers, of which each has one at least."""
    if point.regime == "weak":
        return point.shards // point.workers * workers
    return max(point.shards, workers)


def _own_rows(batch_size: int, shards: int, workers: int) -> int:
    """Count the rows of the worker that has most."""
    return min(ceil(shards / workers) * ceil(batch_size / shards), batch_size)


def _interval(value: float, drawn: Array) -> Interval:
    low, high = np.percentile(drawn, [_TAIL_PERCENT, 100 - _TAIL_PERCENT])
    return Interval(value, float(min(low, value)), float(max(high, value)))


def _limit(profiled: Profiled, rows: float, job: _Job, ideal_s: float) -> str:
    """Name what costs most of the time that is lost beside the ideal speed-up."""
    step = job.step(profiled, rows)
    if ideal_s / step.seconds >= _NOTHING_LIMITS:
        return "nothing"
    at_once = replace(job.cluster.network, latency_s=0.0, message_s=0.0, cpu_s_per_byte=0.0)
    of_bytes_s = replace(job, cluster=replace(job.cluster, network=at_once)).step(profiled, rows).exposed_s
    lost: Mapping[str, float] = {
        "small shards": step.shards_s + step.node_sum_s - ideal_s,
        "update": step.update_s,
        "bandwidth": of_bytes_s,
        "latency": step.exposed_s - of_bytes_s,
    }
    if job.crowding > 1:
        lost = {"shared cores": step.seconds - step.exposed_s - ideal_s, **lost}
    return max(lost, key=lambda name: lost[name])


def _enough_batch(profiled: Profiled, job: _Job) -> int | None:
    """Find the smallest batch with which workers are efficient enough, by bisection over the rows of each."""
    workers = job.workers

    def is_enough(rows: int) -> bool:
        seconds = job.step(profiled, rows).seconds
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
    one_rows = found.batch_size // (found.workers if point.regime == "weak" else 1)
    profiled = Profiled.of(point.model, one_rows, profiles)
    job = _Job(nodes=found.nodes, shards=_shards(point, found.workers), cluster=cluster)
    network, crowding = cluster.network, job.crowding
    if network.cpu_s_per_byte:
        slowest = min(network.bytes_per_s, 1 / (network.cpu_s_per_byte * crowding))
        network = replace(network, bytes_per_s=slowest)
    return simulate(
        job.work(profiled, found.rows).slowed(crowding),
        network,
        found.nodes,
        job.traffic(profiled),
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

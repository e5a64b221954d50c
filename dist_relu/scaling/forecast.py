"""Forecasts: steps on numbers of nodes that nobody has, from what one worker does and what messages cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.scaling.cost import Step
from dist_relu.scaling.grid import Point, Series
from dist_relu.scaling.intervals import Interval
from dist_relu.scaling.job import Cluster, Job, Profiled
from dist_relu.scaling.profile import Profile
from dist_relu.scaling.simulation import Failures, Simulated, simulate

_RESAMPLES = 200
_TAIL_PERCENT = 2.5
_GOOD_EFFICIENCY = 0.8
_NOTHING_LIMITS = 0.95
_MOST_ROWS = 2**24


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


def forecast(
    point: Point, profiles: Sequence[Profile], cluster: Cluster, nodes: Sequence[int], seed: int = 0
) -> list[Forecast]:
    """Forecast the series of a point on these numbers of nodes; those are left out for which a batch has no samples.

    point: any of the series; "strong" for the same batch on all, "weak" for one that grows with the workers.
    Raises ValueError where nothing of its model was measured.
    """
    rng = np.random.default_rng(seed)
    profiled: dict[int, tuple[Profiled, list[Profiled]]] = {}
    found = []
    for number in sorted(set(nodes)):
        job = Job(point=point, nodes=number, cluster=cluster)
        if job.batch_size < job.workers:
            continue
        at_once, own = job.at_once(profiles), job.rows
        if at_once not in profiled:
            profiled[at_once] = job.profiled(profiles), [job.profiled(profiles, rng) for _ in range(_RESAMPLES)]
        typical, drawn = profiled[at_once]
        step = job.step(typical, own)
        seconds = [job.step(each, own).seconds for each in drawn]
        ones = [each.one_worker_s(job.rows_of_one) for each in drawn]
        more = job.batch_size / job.rows_of_one
        one_s = typical.one_worker_s(job.rows_of_one)
        speed_up = _interval(one_s / step.seconds * more, np.divide(ones, seconds) * more)
        found.append(
            Forecast(
                nodes=number,
                workers=job.workers,
                batch_size=job.batch_size,
                rows=own,
                step=step,
                seconds=_interval(step.seconds, np.array(seconds)),
                speed_up=speed_up,
                efficiency=speed_up * (1 / job.workers),
                limit=_limit(typical, own, job, one_s * more / job.workers),
                enough_batch=_enough_batch(typical, job) if job.workers > 1 else None,
                node_bytes=typical.node_bytes(own * cluster.workers_per_node),
            )
        )
    return found


def _interval(value: float, drawn: Array) -> Interval:
    low, high = np.percentile(drawn, [_TAIL_PERCENT, 100 - _TAIL_PERCENT])
    return Interval(value, float(min(low, value)), float(max(high, value)))


def _limit(profiled: Profiled, rows: float, job: Job, ideal_s: float) -> str:
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


def _enough_batch(profiled: Profiled, job: Job) -> int | None:
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
    job = Job(point=point, nodes=found.nodes, cluster=cluster)
    profiled = job.profiled(profiles)
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
    of_model = [one for one in profiles if (one.share.model, one.share.nodes, one.share.at_once) == (model, 2, 1)]
    nearest = min(abs(one.share.rows - rows) for one in of_model)
    times = [np.array(one.step_seconds) for one in of_model if abs(one.share.rows - rows) == nearest]
    return [float(time / np.median(each)) for each in times for time in each]


def series_points(points: Sequence[Point]) -> list[Point]:
    """List one point of each series, in the order in which `Experiment.rows` has them, however they were measured."""
    found: dict[Series, Point] = {}
    for point in points:
        found.setdefault(point.series, point)
    return [found[series] for series in sorted(found)]

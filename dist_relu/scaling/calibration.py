"""What messages take of cores while training goes on, told by steps that were measured on several nodes.

Messages alone are not enough to know it: in a step they share the core and its caches with layers, and workers who wait
look for them again and again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dist_relu.scaling.intervals import Interval
from dist_relu.scaling.job import Cluster, Job, Profiled
from dist_relu.scaling.measurement import Measurement
from dist_relu.scaling.network import Network
from dist_relu.scaling.profile import Profile

FACTOR_BOUNDS = 0.25, 8.0
"""The smallest factor that is tried, and the largest."""

_FACTORS = np.geomspace(*FACTOR_BOUNDS, 101)
"""What is tried, in steps of 3.5 %."""

_TIE = 1e-4
"""Where the wire alone decides how long steps take, all factors explain them alike: the one next to 1 is taken."""

_RESAMPLES = 200
_TAIL_PERCENT = 2.5


@dataclass(frozen=True, kw_only=True)
class _Case:
    """A job, what its workers do, and how long steps of it took, one median a repetition."""

    job: Job
    profiled: Profiled
    seconds: Sequence[float]


def calibrated(
    network: Network, measurements: Sequence[Measurement], profiles: Sequence[Profile], cluster: Cluster
) -> tuple[Network, Interval] | None:
    """Return the network with costs of messages that explain measured steps best, and by how much they are multiplied.

    One factor for `message_s` and `cpu_s_per_byte`, by least squares of the logarithms of forecast over measured; its
    interval by the bootstrap over repetitions.  cluster: as it was when they were measured, but for its nodes; workers
    are as many on each.  None where no steps on several nodes were measured, of models that have profiles.
    """
    cases = _cases(measurements, profiles, cluster)
    if not cases:
        return None
    expected = np.log([[_expected_s(case, network, factor) for factor in _FACTORS] for case in cases])
    rng = np.random.default_rng(0)
    drawn = [
        _best(expected, [float(np.median(rng.choice(case.seconds, len(case.seconds)))) for case in cases])
        for _ in range(_RESAMPLES)
    ]
    best = _best(expected, [float(np.median(case.seconds)) for case in cases])
    low, high = np.percentile(drawn, [_TAIL_PERCENT, 100 - _TAIL_PERCENT])
    return _scaled(network, best), Interval(best, float(min(low, best)), float(max(high, best)))


def _cases(measurements: Sequence[Measurement], profiles: Sequence[Profile], cluster: Cluster) -> list[_Case]:
    names = {one.share.model for one in profiles}
    seconds: dict[Job, list[float]] = {}
    for one in measurements:
        if one.nodes > 1 and one.point.model in names and one.point.workers % one.nodes == 0:
            placed = replace(cluster, workers_per_node=one.point.workers // one.nodes)
            job = Job(point=one.point, nodes=one.nodes, cluster=placed)
            seconds.setdefault(job, []).append(float(np.median(one.step_seconds)))
    return [_Case(job=job, profiled=job.profiled(profiles), seconds=times) for job, times in seconds.items()]


def _expected_s(case: _Case, network: Network, factor: float) -> float:
    job = replace(case.job, cluster=replace(case.job.cluster, network=_scaled(network, factor)))
    return job.step(case.profiled, job.rows).seconds


def _best(expected: np.ndarray, seconds: Sequence[float]) -> float:
    """Choose a factor.  expected: logarithms (cases, factors)."""
    errors = np.mean((expected - np.log(seconds)[:, np.newaxis]) ** 2, axis=0)
    return float(_FACTORS[np.argmin(errors + _TIE * np.log(_FACTORS) ** 2)])


def _scaled(network: Network, factor: float) -> Network:
    return replace(network, message_s=network.message_s * factor, cpu_s_per_byte=network.cpu_s_per_byte * factor)

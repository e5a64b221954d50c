"""Matrix products of dense layers beside the core's peak of fused multiply-adds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from time import perf_counter

import numpy as np

from dist_relu.bench.cases import CASES
from dist_relu.bench.instruction_sets import environment_for
from dist_relu.bench.ours import on_one_worker
from dist_relu.bench.peak import fma_peak
from dist_relu.bench.sides import Side, Start, running
from dist_relu.core.arrays import aligned_empty
from dist_relu.kernels.products import multiply, multiply_by_transpose, multiply_transposed
from dist_relu.kernels.tiles import AS_IS

_ROUND_S = 0.05
_CASES = ("mlp-tiny", "mlp-medium", "mlp-large")


@dataclass(frozen=True)
class Speed:
    """Products of a dense layer: (N, C) times (C, K) forward, and those by its inputs and by its weights backward.

    In GFLOP/s, the median over rounds; share: of the peak in the same round.
    """

    batch_size: int
    inputs: int
    outputs: int
    direction: str
    gflops: float
    share: float


@dataclass(frozen=True)
class Speeds:
    """What was measured on one core, and with which instruction set."""

    instruction_set: str
    peak_gflops: float
    speeds: list[Speed]


def run(rounds: int, instruction_set: str) -> Iterator[Speeds]:
    """Time the products of some cases on one core, in a process of its own; yields all that was measured after each.

    Raises ValueError where there is no such instruction set.
    """
    environment = environment_for(instruction_set)
    with running("ours", Start(on_one_worker), [max(os.sched_getaffinity(0))], environment) as side:
        name, peaks = side.instruction_set(), []
        speeds: list[Speed] = []
        for shape in shapes():
            peak_gflops, of_shape = side.ask(partial(_measured, shape=shape, rounds=rounds))
            peaks.append(peak_gflops)
            speeds += of_shape
            yield Speeds(name, float(np.median(peaks)), [*speeds])


def shapes() -> list[tuple[int, int, int]]:
    """List N, C and K of all layers but the last of the cases that are measured."""
    found = []
    for case in CASES:
        if case.name in _CASES:
            found += [(case.batch_size, *pair) for pair in pairwise([*case.input_shape, *case.sizes])]
    return found


def _measured(side: Side, shape: tuple[int, int, int], rounds: int) -> tuple[float, list[Speed]]:
    """Return the peak in GFLOP/s, and the speeds of a shape's products."""
    n, c, k = shape
    calls = _calls(n, c, k)
    gflops = np.empty((rounds, len(calls)))
    peak = np.empty((rounds, 1))
    for number in range(rounds):
        peak[number] = fma_peak(np.float32)
        gflops[number] = [2 * n * c * k / _seconds(call) / 1e9 for call in calls.values()]
    medians, shares = np.median(gflops, axis=0), np.median(gflops / peak, axis=0)
    speeds = [Speed(n, c, k, *row) for row in zip(calls, medians.tolist(), shares.tolist(), strict=True)]
    return float(np.median(peak)), speeds


def _calls(n: int, c: int, k: int) -> dict[str, Callable[[], None]]:
    rng = np.random.default_rng(0)
    x, w, z, dx, dw = (aligned_empty(shape, np.float32) for shape in ((n, c), (c, k), (n, k), (n, c), (c, k)))
    for array in (x, w, z):
        rng.standard_normal(dtype=np.float32, out=array)
    return {
        "forward": lambda: multiply(x, w, w[0], AS_IS, z),
        "by inputs": lambda: multiply_by_transpose(z, w, dx),
        "by weights": lambda: multiply_transposed(x, 0, c, z, dw),
    }


def _seconds(call: Callable[[], None]) -> float:
    """Tell how long a call takes: the median of some."""
    call()
    times: list[float] = []
    while sum(times) < _ROUND_S:
        begin = perf_counter()
        call()
        times.append(perf_counter() - begin)
    return float(np.median(times))

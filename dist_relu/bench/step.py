"""A whole training step (SGD with momentum) on one core beside PyTorch and JAX: by turns, in processes of their own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dist_relu.bench import jax_side, ours, torch_side
from dist_relu.bench.cases import Case
from dist_relu.bench.instruction_sets import TITLES, environment_for
from dist_relu.bench.networks import beginning, flops
from dist_relu.bench.peak import fma_peak
from dist_relu.bench.sides import UNKNOWN, RunningSide, Side, Start, running
from dist_relu.errors import BackendError

ROUND_S = 0.4
_TRY_S = 0.05
"""So long steps are taken to learn how many of them make a round."""

PEERS = ("torch", "jax")
"""Libraries to compare with."""


@dataclass(frozen=True)
class Timing:
    """Medians over rounds of a step in milliseconds, by side; ratios: of a peer's time and ours in the same round.

    peak_share: what part of the time we would take if there were products alone, at the peak of all cores.
    bounds: the ratios as they would be then, which no order of the same multiplications goes beyond.
    """

    case: str
    ours_ms: float
    peers_ms: dict[str, float]
    ratios: dict[str, float]
    peak_share: float
    bounds: dict[str, float]

    @property
    def best_ratio(self) -> float:
        """That of the fastest peer."""
        return min(self.ratios.values())

    @property
    def best_bound(self) -> float:
        """That of the fastest peer."""
        return min(self.bounds.values())


@dataclass(frozen=True)
class Comparison:
    """What was measured.  instruction_sets: by the name of a side.  peak_gflops: of a core's fused multiply-adds."""

    instruction_sets: dict[str, str]
    peak_gflops: float
    timings: list[Timing]


def run(
    cases: Sequence[Case],
    peers: Sequence[str],
    rounds: int,
    instruction_set: str,
    on_case: Callable[[str], object],
) -> Iterator[Comparison]:
    """Time the cases, each side for some tenths of a second a turn; yields all that was measured after each case.

    instruction_set: as in `environment_for`.  on_case: called with the name of each before it begins.

    Raises ValueError where there is no such instruction set, and BackendError when a side ends, or does not do as it
    was told.
    """
    environment = environment_for(instruction_set)
    cores = [max(os.sched_getaffinity(0))]
    starts = {name: _STARTS[name] for name in ("ours", *peers)}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sides = {name: stack.enter_context(running(name, start, cores, environment)) for name, start in starts.items()}
        names = {name: side.instruction_set() for name, side in sides.items()}
        _check(names, instruction_set)
        peak_gflops = float(sides["ours"].ask(peak))
        timings: list[Timing] = []
        for case in cases:
            on_case(case.name)
            timings.append(time_case(case, sides, folder, rounds, peak_gflops))
            yield Comparison(names, peak_gflops, [*timings])


_STARTS = {
    "ours": Start(ours.on_one_worker),
    "torch": Start(torch_side.with_threads),
    "jax": Start(jax_side.with_jit),
}


def _check(names: Mapping[str, str], instruction_set: str) -> None:
    """Raise BackendError where a side says that it uses another instruction set than it should."""
    expected = TITLES.get(instruction_set)
    for side, name in names.items():
        if expected and name not in (expected, UNKNOWN):
            raise BackendError(f"{side} uses {name}, although it was told to use {expected}.")


def time_case(case: Case, sides: Mapping[str, RunningSide], folder: Path, rounds: int, peak_gflops: float) -> Timing:
    """Time the sides by turns, each other round in the opposite order.

    folder: where they find the numbers that they begin with.  peak_gflops: of all cores.
    """
    num_steps, start = {}, beginning(case, folder / f"{case.name}.npy")
    for name, side in sides.items():
        side.prepare(case, start)
        step_ms = side.step_ms(2)  # in which things are compiled and recorded
        if step_ms < _TRY_S * 1e3:
            step_ms = side.step_ms(_num_steps(step_ms, _TRY_S))
        num_steps[name] = _num_steps(step_ms, ROUND_S)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in reversed(list(sides)) if number % 2 else sides:
            times[name].append(sides[name].step_ms(num_steps[name]))
    ratios = {name: float(np.median(np.divide(times[name], times["ours"]))) for name in sides if name != "ours"}
    medians = {name: float(np.median(values)) for name, values in times.items()}
    peak_share = flops(case) / (medians["ours"] * 1e6 * peak_gflops)
    bounds = {name: ratio / peak_share for name, ratio in ratios.items()}
    return Timing(case.name, medians.pop("ours"), medians, ratios, peak_share, bounds)


def _num_steps(step_ms: float, seconds: float) -> int:
    return max(int(seconds * 1e3 / step_ms), 2)


def peak(_: Side) -> float:
    """Measure the peak of a core on which a side runs, in GFLOP/s."""
    return fma_peak(np.float32)

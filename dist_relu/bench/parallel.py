"""Training steps on several workers beside PyTorch, JAX and scikit-learn on as many cores.

By turns, each in processes of its own; then each of them again, alone, for its memory and its start.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from dist_relu.bench import jax_side, ours, sklearn_side, torch_side
from dist_relu.bench.cases import Case
from dist_relu.bench.footprint import Footprint, footprint
from dist_relu.bench.networks import beginning
from dist_relu.bench.sides import Start, running
from dist_relu.bench.step import Timing, peak, time_case
from dist_relu.core import machine

PEERS = ("torch", "jax", "sklearn")
"""Libraries to compare with."""

CASES = ("mlp-tiny", "mlp-small", "mlp-medium", "mlp-large", "cnn-mnist")
"""The names of those that are compared by default."""


@dataclass(frozen=True)
class Parallel:
    """What a case takes.

    footprints: by side; of several starts the median time, and the most memory. Empty where they were not measured.
    """

    timing: Timing
    footprints: dict[str, Footprint]


@dataclass(frozen=True)
class Comparison:
    """What was measured.  cores: which all sides shared.  sides: their names.  peak_gflops: of a core."""

    workers: int
    cores: int
    sides: list[str]
    peak_gflops: float
    cases: list[Parallel]


def run(
    cases: Sequence[Case],
    peers: Sequence[str],
    workers: int,
    rounds: int,
    starts: int,
    on_case: Callable[[str], object],
) -> Iterator[Comparison]:
    """Time the cases, each side for some tenths of a second a turn; then start each side anew for every case.

    Yields all that was measured after each case, and again after its starts.

    All sides have as many CPUs as there are workers, or all that there are, of as many cores as can be. PyTorch is two
    of them: `torch` has threads, `torch ddp` as many processes as we. starts: how often each side is started.
    on_case: called with the name of each before it begins. Raises BackendError when a side ends.
    """
    cpus = machine.last_cpus(workers)
    cores = machine.count_cores(cpus)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ExitStack() as stack:
            sides = {
                side: stack.enter_context(running(side, start, cpus, {}))
                for side, start in _starts(peers, workers, folder / "ddp").items()
            }
            peak_gflops = float(sides["ours"].ask(peak))
            found: list[Parallel] = []
            names = list(sides)
            for case in cases:
                on_case(case.name)
                able = {side: one for side, one in sides.items() if _trains(side, case)}
                found.append(Parallel(time_case(case, able, folder, rounds, cores * peak_gflops), {}))
                yield Comparison(workers, cores, names, peak_gflops, [*found])
        for i, case in enumerate(cases) if starts else ():
            on_case(f"{case.name}, one side at a time")
            found[i] = replace(found[i], footprints=_footprints(case, peers, workers, cpus, folder, starts))
            yield Comparison(workers, cores, names, peak_gflops, [*found])


def _starts(peers: Sequence[str], workers: int, meeting_point: Path) -> dict[str, Start]:
    """Return how the sides start, by their names.  meeting_point: a file that isn't there yet."""
    ddp = Start(partial(torch_side.with_ddp, workers, meeting_point), workers)
    of_peer = {
        "torch": {"torch ddp": ddp, "torch": Start(torch_side.with_threads)},
        "jax": {"jax": Start(jax_side.with_jit)},
        "sklearn": {"sklearn": Start(sklearn_side.with_threads)},
    }
    starts = {"ours": Start(partial(ours.on_workers, workers))}
    for peer in peers:
        starts |= of_peer[peer]
    return starts


def _trains(side: str, case: Case) -> bool:
    return side != "sklearn" or sklearn_side.expresses(case)


def _footprints(
    case: Case, peers: Sequence[str], workers: int, cpus: Collection[int], folder: Path, starts: int
) -> dict[str, Footprint]:
    numbers = beginning(case, folder / f"{case.name}.npy")
    found: dict[str, list[Footprint]] = {}
    for number in range(starts):
        for side, start in _starts(peers, workers, folder / f"{case.name} {number}").items():
            if _trains(side, case):
                found.setdefault(side, []).append(footprint(side, start, cpus, case, numbers))
    return {
        side: Footprint(float(np.median([one.first_step_s for one in several])), max(one.peak_bytes for one in several))
        for side, several in found.items()
    }

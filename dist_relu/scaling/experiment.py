"""An experiment measures all points again and again, in an order that is drawn anew each time.

What was measured is in a file at once, so an experiment that was ended goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_int
from dist_relu.data import Dataset
from dist_relu.nn import Sequential
from dist_relu.optim import SGD, Optimizer
from dist_relu.scaling import machine
from dist_relu.scaling.folder import MEASUREMENTS_FILE, add_line, begin, read_lines
from dist_relu.scaling.grid import Point, check_batch, check_models
from dist_relu.scaling.intervals import Interval, median, paired_ratio
from dist_relu.scaling.measurement import HERE, Measurement, Placement, Work, measure


@dataclass(frozen=True, kw_only=True)
class Row:
    """What all measurements of a point come to.

    step_s: how long a step takes.  speed_up: samples a second beside those on the fewest workers of the series, and of
    these on the fewest nodes.  efficiency: the same for each worker.  nodes: on which they were.
    is_busy: others may have lengthened a time.  is_ratio_busy: a time of this point or of the one it is held against,
    so that they may have changed the ratios.  repetitions: so many times it was measured.
    """

    point: Point
    nodes: int
    repetitions: int
    step_s: Interval
    speed_up: Interval
    efficiency: Interval
    is_busy: bool
    is_ratio_busy: bool

    @property
    def samples_per_second(self) -> float:
        return self.point.batch_size / self.step_s.value


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What was measured, on which machine.  settings: those that all measurements share."""

    points: Sequence[Point]
    measurements: Sequence[Measurement]
    machine: Mapping[str, Any]
    settings: Mapping[str, Any]

    def rows(self) -> list[Row]:
        """Return a row for each point that was measured, series by series, the fewest workers, then nodes, first."""
        rows = []
        for _, group in groupby(sorted(self.points, key=lambda p: (p.series, p.size)), lambda p: p.series):
            measured = [(point, found) for point in group if (found := self._of(point))]
            if not measured:
                continue
            base, of_base = measured[0]
            for point, found in measured:
                rounds = sorted(of_base.keys() & found.keys())
                if not rounds:  # ended before the first round was complete
                    continue
                ratio = paired_ratio(_times(of_base, rounds), _times(found, rounds))
                more_samples = point.batch_size / base.batch_size
                rows.append(
                    Row(
                        point=point,
                        nodes=max(one.nodes for one in found.values()),
                        repetitions=len(found),
                        step_s=median(_times(found, sorted(found))),
                        speed_up=ratio * more_samples,
                        efficiency=ratio * (more_samples * base.workers / point.workers),
                        is_busy=any(one.company.is_busy for one in found.values()),
                        is_ratio_busy=found is not of_base
                        and any(each[number].company.is_busy for each in (of_base, found) for number in rounds),
                    )
                )
        return rows

    def disagreeing(self) -> list[Point]:
        """List the points that have other bits than most that compute the same; none, unless one is faulty."""
        digests: dict[tuple[Any, ...], list[tuple[str, Point]]] = {}
        for one in self.measurements:
            same = (one.point.model, one.point.batch_size, one.point.shards)
            digests.setdefault(same, []).append((one.sha256, one.point))
        found = []
        for equals in digests.values():
            names = [digest for digest, _ in equals]
            most = max(names, key=names.count)
            found += [point for digest, point in equals if digest != most]
        return list(dict.fromkeys(found))

    def _of(self, point: Point) -> dict[int, Measurement]:
        return {one.repetition: one for one in self.measurements if one.point == point}


def _times(found: Mapping[int, Measurement], rounds: Sequence[int]) -> Array:
    return np.array([found[number].step_seconds for number in rounds])


def experiment(
    models: Mapping[str, Sequential],
    data: Dataset,
    optimizer: Optimizer | None = None,
    *,
    points: Sequence[Point],
    folder: str | Path,
    steps: int = 100,
    warm_up: int = 10,
    repetitions: int = 5,
    seed: int = 0,
    placement: Placement = HERE,
    on_measured: Callable[[Measurement, int, int], object] | None = None,
) -> Experiment:
    """Time trainings at all points, so many times each, and write every measurement into the folder at once.

    Each round measures all points, in an order that is drawn from the seed. What the folder holds already of the same
    experiment is not measured again, so that one that was ended goes on.

    models: by the names that points have.  data: to train on.  optimizer: by default SGD(0.01, momentum=0.9).
    points: see `strong` and `weak`.  steps: are timed in each measurement, behind `warm_up` others.
    placement: where workers are, see `Placement`; by default on this machine.
    on_measured: gets each measurement, how many there are now, and how many there will be.

    Raises ValueError for a point whose model is not in `models`, and where the folder holds another experiment, with
    another model of a name, other data, or of another machine; what `start` and `Placement.lacking` raise, and what the
    latter finds for points that are still to be measured; and `PartitionError` where a batch has more samples than the
    data.
    """
    check_int("steps", steps, least=2)
    check_int("warm_up", warm_up)
    check_int("repetitions", repetitions, least=1)
    points = list(dict.fromkeys(points))
    check_models(points, models)
    for point in points:
        check_batch(point.batch_size, len(data))
    folder = Path(folder)
    found = [one for one in read_measurements(folder) if one.point in points]
    done = {(one.point, one.repetition) for one in found}
    rng = np.random.default_rng(seed)
    order = [(points[i], number) for number in range(repetitions) for i in rng.permutation(len(points))]
    wanted = [each for each in order if each not in done]
    num_done = len(order) - len(wanted)
    for reason in placement.lacking([point for point, _ in wanted]).values():
        raise reason
    optimizer = optimizer or SGD(0.01, momentum=0.9)
    settings, facts = {"steps": steps, "warm_up": warm_up, "seed": seed}, machine.facts()
    begin(folder, models, data, optimizer, settings | placement.as_json(), facts)
    for point, number in wanted:
        work = Work(model=models[point.model], data=data, optimizer=optimizer, steps=steps, warm_up=warm_up, seed=seed)
        one = measure(point, work, number, folder, placement)
        add_line(folder / MEASUREMENTS_FILE, one.line())
        found.append(one)
        num_done += 1
        if on_measured:
            on_measured(one, num_done, len(order))
    return Experiment(points=points, measurements=found, machine=facts, settings=settings)


def read_measurements(folder: Path) -> Iterator[Measurement]:
    """Read what was measured, see `read_lines`."""
    return read_lines(folder / MEASUREMENTS_FILE, Measurement.of_json, lambda one: len(one.step_seconds))

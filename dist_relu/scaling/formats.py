"""An experiment in the forms that other tools read."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

from dist_relu.core.files import write_file
from dist_relu.scaling.experiment import Experiment, Row
from dist_relu.scaling.grid import Point
from dist_relu.scaling.measurement import Measurement

CSV_FILE, EXTRA_P_FILE, MLPERF_FILE = "scaling.csv", "extrap.txt", "mlperf.log"

_INTERVALS = ("step_s", "speed_up", "efficiency")
_PARTS = ("regime", "model", "backend", "batch", "shards", "nodes")
"""What a series is made of, see `Point.series`, and which of its curves."""
_MARKS = ("is_busy", "is_ratio_busy")


def write_formats(experiment: Experiment, folder: Path) -> None:
    """Write a table as CSV, times as Extra-P reads them, and a log as MLPerf has it."""
    write_file(folder / CSV_FILE, as_csv(experiment.rows()))
    write_file(folder / EXTRA_P_FILE, as_extra_p(experiment))
    write_file(folder / MLPERF_FILE, as_mlperf(experiment))


def as_csv(rows: Sequence[Row]) -> str:
    """A line for each point, with the bounds of its intervals."""
    text = io.StringIO()
    point_names = ["regime", "model", "backend", "workers", "batch_size", "shards"]
    bounds = [f"{name}{end}" for name in _INTERVALS for end in ("", "_low", "_high")]
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*point_names, "nodes", "repetitions", "samples_per_s", *bounds, *_MARKS])
    for row in rows:
        numbers = [number for name in _INTERVALS for number in _numbers(getattr(row, name))]
        of_point = [getattr(row.point, name) for name in point_names]
        marks = [getattr(row, name) for name in _MARKS]
        table.writerow([*of_point, row.nodes, row.repetitions, row.samples_per_second, *numbers, *marks])
    return text.getvalue()


def _numbers(interval: Any) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high


def as_extra_p(experiment: Experiment) -> str:
    """The text format of Extra-P 4: the median time of a step in each repetition, by the number of workers.

    Where points say on how many nodes they are, also by that.  Each series is a region; its points are those that all
    series have.
    """
    by_point: dict[Point, list[Measurement]] = {}
    for one in experiment.measurements:
        by_point.setdefault(one.point, []).append(one)
    series = [
        (name, {point.size: by_point[point] for point in group if point in by_point})
        for name, group in groupby(sorted(experiment.points, key=lambda p: (p.series, p.size)), lambda p: p.series)
    ]
    common = sorted(set.intersection(*(set(found) for _, found in series))) if series else []
    names = ["workers", "nodes"] if any(point.nodes for point in experiment.points) else ["workers"]
    coordinates = [" ".join(map(str, size[: len(names)])) for size in common]
    lines = [f"PARAMETER {name}" for name in names]
    lines.append("POINTS " + " ".join(f"( {each} )" for each in coordinates))
    for (regime, model, backend, batch_size, shards), found in series:
        lines += [f"REGION {regime}/{model}/{backend}/batch_{batch_size}/shards_{shards}", "METRIC step_seconds"]
        lines += ["DATA " + " ".join(f"{median(one.step_seconds):.9g}" for one in found[size]) for size in common]
    return "\n".join(lines) + "\n"


def as_mlperf(experiment: Experiment) -> str:
    """The lines that MLPerf's logging library writes (mlperf_logging 4), one run for each measurement."""
    lines = []
    for one in experiment.measurements:
        ended = one.began + sum(one.step_seconds)
        point = one.point
        about = {"workers": point.workers, "nodes": one.nodes, "backend": point.backend, "repetition": one.repetition}
        speed = point.batch_size * len(one.step_seconds) / sum(one.step_seconds)
        for at, kind, key, value, metadata in (
            (one.began, "POINT_IN_TIME", "submission_benchmark", point.model, about),
            (one.began, "POINT_IN_TIME", "global_batch_size", point.batch_size, {}),
            (one.began, "POINT_IN_TIME", "seed", experiment.settings["seed"], {}),
            (one.began, "INTERVAL_START", "run_start", None, {}),
            (ended, "POINT_IN_TIME", "tracked_stats", {"throughput": speed}, {"step": len(one.step_seconds)}),
            (ended, "INTERVAL_END", "run_stop", None, {"status": "success"}),
        ):
            entry = {"namespace": "", "time_ms": round(at * 1000), "event_type": kind, "key": key}
            lines.append(f":::MLLOG {json.dumps({**entry, 'value': value, 'metadata': metadata})}")
    return "".join(f"{line}\n" for line in lines)


def series_of(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Group rows of one series, with words for it that say what differs from the others."""
    return _told_apart(rows, lambda row: row.point.series)


def curves_of(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Group rows of one series and as many nodes, with words that say what differs from the others."""

    def of_curve(row: Row) -> tuple[Any, ...]:
        return *row.point.series, row.point.nodes or 0

    return _told_apart(sorted(rows, key=of_curve), of_curve)


def _told_apart(rows: Sequence[Row], parts_of: Callable[[Row], tuple[Any, ...]]) -> Iterator[tuple[str, list[Row]]]:
    grouped = [(dict(zip(_PARTS, parts, strict=False)), list(group)) for parts, group in groupby(rows, parts_of)]
    differing = [name for name in _PARTS if len({parts.get(name) for parts, _ in grouped}) > 1]
    for parts, group in grouped:
        each = " a worker" * (parts["regime"] == "weak")
        ends = {"batch": each, "shards": each, "nodes": ""}
        words = [f"{name} {parts[name]}{ends[name]}" if name in ends else str(parts[name]) for name in differing]
        yield ", ".join(words) or str(parts["model"]), group

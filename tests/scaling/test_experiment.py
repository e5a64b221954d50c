"""An experiment measures every point in every round, goes on where it was ended, and tells what it has seen."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn
from dist_relu.cli.scale import table
from dist_relu.launch.hosts import Host
from dist_relu.scaling import Experiment, Measurement, Placement, Point, experiment, profiles, strong, weak
from dist_relu.scaling.experiment import read_measurements
from dist_relu.scaling.formats import as_csv, as_extra_p, as_mlperf, curves_of, series_of
from dist_relu.scaling.machine import Clock, Company, company, facts

HERE = strong(["mlp"], [1], backends=["serial"])

CALM = Company(others=0.0, stolen=0.0, load=0.5)


BUSY = replace(CALM, others=0.5)


ON_NODES = strong(["mlp"], [1, 2, 4], backends=["mpi"], nodes=[1, 2])


def measurement(
    point: Point, repetition: int, seconds: float, *, sha256: str = "0" * 64, company: Company = CALM
) -> Measurement:
    return Measurement(
        point=point,
        repetition=repetition,
        began=1.0,
        nodes=point.nodes or 1,
        step_seconds=[seconds, 2 * seconds],
        sha256=sha256,
        company=company,
    )


def made(points: list[Point], seconds: Callable[[Point], float]) -> Experiment:
    measured = [measurement(point, number, seconds(point)) for point in points for number in range(3)]
    return Experiment(points=points, measurements=measured, machine={"cpu": "x", "cores": 2}, settings={"seed": 0})


@pytest.fixture(scope="module")
def data(digits: dr.data.Split) -> dr.data.Dataset:
    return digits.train


def run(folder: Path, data: dr.data.Dataset, points: list[Point], **options: object) -> Experiment:
    arguments: dict[str, object] = {"steps": 3, "warm_up": 1, "repetitions": 2} | options
    return experiment({"mlp": nn.mlp([16], 10)}, data, points=points, folder=folder, **arguments)  # type: ignore[arg-type]


@pytest.mark.long
def test_all_workers_compute_the_same_bits_and_every_point_is_measured_in_every_round(
    data: dr.data.Dataset, tmp_path: Path
) -> None:
    points = strong(["mlp"], [1, 2])
    found = run(tmp_path, data, points)
    assert {(one.point, one.repetition) for one in found.measurements} == {(p, i) for p in points for i in range(2)}
    assert len({one.sha256 for one in found.measurements}) == 1
    assert found.disagreeing() == []
    first, second = found.rows()
    assert (first.point.workers, first.speed_up.value, first.efficiency.value) == (1, 1, 1)
    assert second.efficiency.value == second.speed_up.value / 2
    assert all(len(one.step_seconds) == 3 and min(one.step_seconds) > 0 for one in found.measurements)


def test_what_was_ended_goes_on_and_measures_nothing_twice(data: dr.data.Dataset, tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def end(one: Measurement, done: int, of: int) -> None:
        if done == 3:
            raise Enough

    points = [*HERE, replace(HERE[0], batch_size=32)]
    with pytest.raises(Enough):
        run(tmp_path, data, points, on_measured=end)
    before = (tmp_path / "measurements.jsonl").read_text()
    with (tmp_path / "measurements.jsonl").open("a") as file:
        file.write('{"schema": 1, "poi')  # a crash in the middle of a line
    told: list[tuple[int, int]] = []
    found = run(tmp_path, data, points, on_measured=lambda one, done, of: told.append((done, of)))
    assert told == [(4, 4)]
    assert len(found.measurements) == 4
    assert (tmp_path / "measurements.jsonl").read_text().startswith(before)
    run(tmp_path, data, points, on_measured=lambda one, done, of: told.append((done, of)))
    assert told == [(4, 4)]


def test_all_steps_are_of_whole_batches(data: dr.data.Dataset, tmp_path: Path) -> None:
    points = [replace(HERE[0], batch_size=1000)]  # of 1,438 samples, so every other step would have 438
    (one,) = run(tmp_path / "all", data, points, repetitions=1).measurements
    (other,) = run(tmp_path / "whole", data.of_rows(np.arange(1000)), points, repetitions=1).measurements
    assert one.sha256 == other.sha256


@pytest.mark.parametrize("measure", [experiment, profiles])
def test_a_batch_that_is_larger_than_the_data_is_refused(
    data: dr.data.Dataset, tmp_path: Path, measure: Callable[..., object]
) -> None:
    points = strong(["mlp"], [1], batch_sizes=[4096])
    with pytest.raises(dr.PartitionError, match=r"A batch of 4,096 has more samples than the data, 1,438\."):
        measure({"mlp": nn.mlp([16], 10)}, data, points=points, folder=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_points_that_stand_twice_are_measured_once(data: dr.data.Dataset, tmp_path: Path) -> None:
    found = run(tmp_path, data, [*HERE, *HERE], repetitions=1)
    assert (len(found.measurements), len(found.rows())) == (1, 1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"steps": 4}, r"holds another experiment: steps was 3, and is 4 now\. Choose another folder"),
        ({"models": {"mlp": nn.mlp([16], 10, np.float64)}}, "mlp.dtype was float32, and is float64 now"),
        ({"models": {"mlp": nn.mlp([17], 10)}}, "mlp.layers.0.Dense.units was 16, and is 17 now"),
    ],
)
@pytest.mark.parametrize("measure", [experiment, profiles])
def test_another_experiment_in_the_folder_is_told(
    data: dr.data.Dataset, tmp_path: Path, measure: Any, changed: dict[str, Any], message: str
) -> None:
    run(tmp_path, data, HERE, repetitions=1)
    arguments = {"models": {"mlp": nn.mlp([16], 10)}, "steps": 3, "warm_up": 1, "repetitions": 1} | changed
    with pytest.raises(ValueError, match=message):
        measure(data=data, points=HERE, folder=tmp_path, **arguments)


def test_workers_elsewhere_are_another_experiment(data: dr.data.Dataset, tmp_path: Path) -> None:
    run(tmp_path, data, HERE, repetitions=1)
    with pytest.raises(ValueError, match=r"hosts was \[\], and is \['a:1'\] now"):
        run(tmp_path, data, HERE, placement=Placement(hosts=[Host("a", 1)]))


def test_other_data_of_the_same_shape_are_another_experiment(data: dr.data.Dataset, tmp_path: Path) -> None:
    run(tmp_path, data, HERE, repetitions=1)
    with pytest.raises(ValueError, match=r"data\.sha256 was"):
        run(tmp_path, dr.data.Dataset(data.x + 1, data.y), HERE, repetitions=1)


def test_an_experiment_may_get_more_models(data: dr.data.Dataset, tmp_path: Path) -> None:
    run(tmp_path, data, HERE, repetitions=1)
    more = strong(["other"], [1], backends=["serial"])
    models = {"other": nn.mlp([17], 10)}
    experiment(models, data, points=more, folder=tmp_path, steps=3, warm_up=1, repetitions=1)
    assert len(run(tmp_path, data, HERE, repetitions=1).measurements) == 1
    with pytest.raises(ValueError, match=r"other\.layers\.0\.Dense\.units was 17"):
        experiment({"other": nn.mlp([18], 10)}, data, points=more, folder=tmp_path, steps=3, warm_up=1)


def test_a_folder_that_lacks_a_fact_of_the_machine_goes_on(data: dr.data.Dataset, tmp_path: Path) -> None:
    run(tmp_path, data, HERE, repetitions=1)
    path = tmp_path / "experiment.json"
    whole = json.loads(path.read_text())
    lacking = json.loads(path.read_text())
    del lacking["machine"]["versions"]["mpi"], lacking["machine"]["blas"]
    path.write_text(json.dumps(lacking))
    assert len(run(tmp_path, data, HERE, repetitions=1).measurements) == 1
    assert json.loads(path.read_text()) == whole
    lacking["machine"]["versions"]["numpy"] = "0.1"
    path.write_text(json.dumps(lacking))
    with pytest.raises(ValueError, match=r"versions\.numpy was 0\.1, and is "):
        run(tmp_path, data, HERE, repetitions=1)


@pytest.mark.parametrize("content", ["", "[]", '{"settings": 1}', "[" * 100_000])
def test_a_damaged_description_is_told(data: dr.data.Dataset, tmp_path: Path, content: str) -> None:
    (tmp_path / "experiment.json").write_text(content)
    with pytest.raises(ValueError, match=r"experiment.json does not tell of an experiment: .*\. Choose another folder"):
        run(tmp_path, data, HERE)


def test_measurements_of_nobody_knows_what_are_told(data: dr.data.Dataset, tmp_path: Path) -> None:
    run(tmp_path, data, HERE, repetitions=1)
    (tmp_path / "experiment.json").unlink()
    with pytest.raises(ValueError, match=r"has measurements, but no experiment\.json"):
        run(tmp_path, data, HERE)


def test_lines_that_are_damaged_are_measured_again(data: dr.data.Dataset, tmp_path: Path) -> None:
    run(tmp_path, data, HERE, repetitions=1)
    for damaged in (b"\xff\n", b"[" * 100_000 + b"\n", b'{"schema": 1, "poi', b"\n"):
        (tmp_path / "measurements.jsonl").write_bytes(damaged)
        assert len(run(tmp_path, data, HERE, repetitions=1).measurements) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (3, "it is 3"),
        (None, "it is None"),
        ({"schema": 2}, "its schema is not 1"),
        ({"sha256": ...}, "it has no sha256"),
        ({"more": 1}, "it has 'more'"),
        ({"step_seconds": "x"}, "step_seconds is 'x'"),
        ({"step_seconds": [1.0, None]}, r"step_seconds\[1\] is None"),
        ({"step_seconds": [0.0]}, r"step_seconds\[0\] is 0.0"),
        ({"step_seconds": [1.0]}, "step_seconds has 1 times, not 2 as before"),
        ({"step_seconds": []}, r"step_seconds is \[\]"),
        ({"point": asdict(HERE[0]) | {"regime": "other"}}, "point.regime is 'other'"),
        ({"point": asdict(HERE[0]) | {"workers": 0}}, "point.workers is 0"),
        ({"point": asdict(HERE[0]) | {"nodes": None}}, "point.nodes is None"),
        ({"point": asdict(HERE[0]) | {"nodes": 2}}, "point has 2 nodes, and workers were on 1"),
        ({"point": asdict(HERE[0]) | {"nodes": 1, "shards": 65}}, "point has 1 workers, 65 shards, 64 samples"),
        ({"messages": [[4000]]}, r"messages\[0\] is \[4000\]"),
        ({"company": None}, "company is None"),
    ],
)
def test_lines_that_are_no_measurements_are_told(tmp_path: Path, change: Any, message: str) -> None:
    good = json.loads(measurement(HERE[0], 0, 1.0).line())
    content = change
    if isinstance(change, dict):
        content = {name: value for name, value in (good | change).items() if value is not ...}
    (tmp_path / "measurements.jsonl").write_text(f"{json.dumps(good)}\n{json.dumps(content)}\n")
    told = rf"measurements\.jsonl, line 2 is no measurement: {message}\. Remove this line, and it is measured again\."
    with pytest.raises(ValueError, match=told):
        list(read_measurements(tmp_path))


def test_lines_are_those_of_the_schema(data: dr.data.Dataset, tmp_path: Path) -> None:
    run(tmp_path, data, HERE, repetitions=1)
    schema = json.loads(files("dist_relu.scaling").joinpath("measurement.schema.json").read_text())
    (measured,) = (tmp_path / "measurements.jsonl").read_text().splitlines()
    for line in (measured, measurement(ON_NODES[-1], 0, 1.0).line()):
        jsonschema.validate(json.loads(line), schema)
        assert Measurement.of_json(json.loads(line)).line() == line


def test_a_worker_that_computes_otherwise_is_found() -> None:
    found = made(strong(["mlp"], [1, 2, 4]), lambda point: 1.0)
    wrong = measurement(found.points[1], 0, 1.0, sha256="f" * 64)
    assert replace(found, measurements=[*found.measurements, wrong, wrong]).disagreeing() == [found.points[1]]


def test_weak_scaling_counts_samples() -> None:
    points = weak(["mlp"], [1, 2, 4], batch_sizes=[32])
    assert [(point.batch_size, point.shards) for point in points] == [(32, 1), (64, 2), (128, 4)]
    rows = made(points, lambda point: 1.0 if point.workers < 4 else 2.0).rows()
    assert [row.speed_up.value for row in rows] == [1, 2, 2]
    assert [row.efficiency.value for row in rows] == [1, 1, 0.5]


def test_the_same_workers_are_measured_on_each_number_of_nodes_that_has_as_many_each() -> None:
    assert [point.size for point in ON_NODES] == [(1, 1), (2, 1), (2, 2), (4, 1), (4, 2)]
    assert [point.size for point in weak(["mlp"], [1, 2], nodes=[2])] == [(2, 2)]
    with pytest.raises(dr.PartitionError, match=r"nodes=4 divides none of workers=1,2\. Pass a multiple"):
        strong(["mlp"], [1, 2], nodes=[1, 4])


def test_workers_on_more_nodes_are_held_against_the_fewest_on_the_fewest() -> None:
    found = made(ON_NODES, lambda point: 1.0 if point.size == (1, 1) else 0.5 * (point.nodes or 0))
    rows = found.rows()
    assert [(row.point.size, row.speed_up.value, row.efficiency.value) for row in rows] == [
        ((1, 1), 1, 1),
        ((2, 1), 2, 1),
        ((2, 2), 1, 0.5),
        ((4, 1), 2, 0.5),
        ((4, 2), 1, 0.25),
    ]
    assert [(name, [row.point.workers for row in curve]) for name, curve in curves_of(rows)] == [
        ("nodes 1", [1, 2, 4]),
        ("nodes 2", [2, 4]),
    ]
    assert [name for name, _ in series_of(rows)] == ["mlp"]
    assert [line["nodes"] for line in csv.DictReader(as_csv(rows).splitlines())] == ["1", "1", "2", "1", "2"]
    assert as_extra_p(found).splitlines()[:3] == [
        "PARAMETER workers",
        "PARAMETER nodes",
        "POINTS ( 1 1 ) ( 2 1 ) ( 2 2 ) ( 4 1 ) ( 4 2 )",
    ]


def test_each_node_is_a_host_with_room_for_as_many() -> None:
    placement = Placement(hosts=[Host("a", 1), Host("b", 4), Host("c", 2)])
    (of_two,) = strong(["mlp"], [2], backends=["mpi"], nodes=[2])
    (of_four,) = strong(["mlp"], [4], backends=["mpi"], nodes=[2])
    assert placement.hosts_of(of_two) == [Host("a", 1), Host("b", 1)]
    assert placement.hosts_of(of_four) == [Host("b", 2), Host("c", 2)]


@pytest.mark.parametrize(
    ("point", "message"),
    [
        (replace(HERE[0], nodes=1), 'with backend="serial" they can\'t be chosen'),
        (replace(ON_NODES[0], nodes=2), "nodes=2 does not divide workers=1"),
        (ON_NODES[-1], "workers=4 on nodes=2: too few hosts have room for 2 ranks each. There are: a:2, b:1."),
    ],
)
def test_nodes_that_there_are_not_are_told_before_anything_is_measured(
    data: dr.data.Dataset, tmp_path: Path, point: Point, message: str
) -> None:
    placement = Placement(hosts=[Host("a", 2), Host("b", 1)])
    with pytest.raises(ValueError, match=re.escape(message)):
        run(tmp_path / "new", data, [point], placement=placement)
    assert not (tmp_path / "new").exists()


def test_strong_scaling_needs_a_shard_for_each_worker() -> None:
    with pytest.raises(dr.PartitionError, match="2 shards leave 2 of 4 workers without work"):
        strong(["mlp"], [1, 4], shards=[2])


def test_tables_for_others_hold_what_was_measured() -> None:
    found = made(strong(["mlp"], [1, 2], batch_sizes=[64, 128]), lambda point: 1.0 / point.workers)
    lines = list(csv.DictReader(as_csv(found.rows()).splitlines()))
    assert [(line["batch_size"], line["workers"], float(line["speed_up"])) for line in lines] == [
        ("64", "1", 1.0),
        ("64", "2", 2.0),
        ("128", "1", 1.0),
        ("128", "2", 2.0),
    ]
    assert as_extra_p(found).splitlines()[:6] == [
        "PARAMETER workers",
        "POINTS ( 1 ) ( 2 )",
        "REGION strong/mlp/local/batch_64/shards_2",
        "METRIC step_seconds",
        "DATA 1.5 1.5 1.5",
        "DATA 0.75 0.75 0.75",
    ]
    entries = [json.loads(line.removeprefix(":::MLLOG ")) for line in as_mlperf(found).splitlines()]
    assert [entry["key"] for entry in entries].count("run_start") == len(found.measurements)
    began, ended = (next(one["time_ms"] for one in entries if one["key"] == key) for key in ("run_start", "run_stop"))
    assert (began, ended) == (1000, 4000)  # steps of 1 and 2 s
    assert [name for name, _ in series_of(found.rows())] == ["batch 64", "batch 128"]


@pytest.mark.parametrize(
    ("busy", "marks"),
    [(1, [(True, False), (False, True), (False, True)]), (2, [(False, False), (True, True), (False, False)])],
)
def test_a_ratio_is_marked_where_one_of_its_times_is(busy: int, marks: list[tuple[bool, bool]]) -> None:
    points = strong(["mlp"], [1, 2, 4])
    measured = [measurement(p, i, 1.0, company=BUSY if p.workers == busy else CALM) for p in points for i in range(2)]
    rows = Experiment(points=points, measurements=measured, machine={}, settings={}).rows()
    assert [(row.is_busy, row.is_ratio_busy) for row in rows] == marks
    for line, (is_busy, is_ratio_busy) in zip(csv.DictReader(as_csv(rows).splitlines()), marks, strict=True):
        assert (line["is_busy"], line["is_ratio_busy"]) == (str(is_busy), str(is_ratio_busy))
    for row, (_, ms, *ratios) in zip(
        rows, zip(*(each.cells for each in table(rows).columns), strict=True), strict=True
    ):
        assert ["*" in str(cell) for cell in (ms, *ratios)] == [row.is_busy, row.is_ratio_busy, row.is_ratio_busy]


def test_what_others_do_on_a_machine_is_told_from_what_is_measured() -> None:
    def clocks(now_s: float, own_s: float, busy_s: float) -> list[Clock]:
        """Of two processes on one host."""
        return [
            Clock(host="a", pid=pid, cpus=2, now_s=now_s, own_s=own_s, busy_s=busy_s, stolen_s=0.0, load=1.0)
            for pid in (1, 2)
        ]

    before = clocks(0.0, 0.0, 0.0)
    alone, beside = company(before, clocks(1.0, 1.0, 2.0)), company(before, clocks(1.0, 0.5, 2.0))
    assert (alone.others, alone.is_busy) == (0.0, False)
    assert (beside.others, beside.is_busy) == (0.5, True)


def test_the_facts_of_a_machine_have_the_versions_of_mpi_and_ray() -> None:
    versions = facts()["versions"]
    assert {name: versions[name] for name in ("mpi4py", "mpich", "ray")} == {
        name: metadata.version(name) for name in ("mpi4py", "mpich", "ray")
    }
    assert versions["mpi"] == f"MPICH {metadata.version('mpich')}"

"""What one worker of many does is measured on one core; a forecast says what many of them would do."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest

import dist_relu as dr
from dist_relu import nn
from dist_relu.scaling import (
    Cluster,
    Network,
    Part,
    Point,
    Profile,
    Share,
    experiment,
    forecast,
    profiles,
    strong,
    weak,
)
from dist_relu.scaling.machine import Company

CALM = Company(others=0.0, stolen=0.0, load=0.5)
FAST = Network(name="fast", latency_s=0.0, bytes_per_s=1e15, message_s=0.0)
POINT = strong(["mlp"], [1], batch_sizes=[64], shards=[8])[0]
SIZE_BYTES = 1e6


def made(nodes: int, rows: int, *, per_row_s: float = 1e-3, fixed_s: float = 0.0) -> Profile:
    """A worker that takes so long for a row, and so long for whatever does not depend on rows."""
    seconds = per_row_s * rows + fixed_s
    return Profile(
        share=Share(model="mlp", nodes=nodes, rows=rows, shards=1),
        repetition=0,
        began=1.0,
        step_seconds=[seconds] * 3,
        parts=[Part(ready_s=0.9 * seconds, size_bytes=SIZE_BYTES)] if nodes > 1 else [],
        node_sum_s=0.0,
        node_bytes=1000 + rows,
        company=CALM,
    )


def all_rows(fixed_s: float = 0.0) -> list[Profile]:
    return [made(1, 64, fixed_s=fixed_s), *(made(2, rows, fixed_s=fixed_s) for rows in (1, 2, 4, 8, 16, 32, 64))]


@pytest.mark.parametrize("measure", [experiment, profiles])
def test_points_of_unknown_models_are_refused(
    digits: dr.data.Split, tmp_path: Path, measure: Callable[..., object]
) -> None:
    with pytest.raises(ValueError, match=r"not in models: mlp\. There are: another"):
        measure({"another": nn.mlp([16], 10)}, digits.train, points=[POINT], folder=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_workers_of_a_node_are_as_slow_as_beside_one_another() -> None:
    together = [replace(one, share=replace(one.share, at_once=2)) for one in (made(1, 32), made(2, 16))]
    slower = [replace(one, step_seconds=[3 * seconds for seconds in one.step_seconds]) for one in together]
    cluster = Cluster(network=FAST, workers_per_node=2)
    alone, beside = (forecast(POINT, all_rows() + others, cluster, [1, 2]) for others in ([], slower))
    for one, other in zip(alone, beside, strict=True):
        assert other.seconds.value == pytest.approx(3 * one.seconds.value)


def test_several_workers_are_measured_at_once(digits: dr.data.Split, tmp_path: Path) -> None:
    points = strong(["mlp"], [1], batch_sizes=[8], shards=[2])
    measured = profiles(
        {"mlp": nn.mlp([16], 10)}, digits.train, points=points, folder=tmp_path, steps=3, repetitions=1, at_once=[2]
    )
    together = [one for one in measured if one.share.at_once == 2]
    assert [(one.share.nodes, one.share.rows, one.share.shards) for one in together] == [(1, 4, 1), (2, 4, 1)]
    assert all(len(one.step_seconds) == 2 and min(one.step_seconds) > 0 for one in together)


def test_a_worker_of_many_is_measured_alone(digits: dr.data.Split, tmp_path: Path) -> None:
    model = nn.mlp([16], 10)
    points = strong(["mlp"], [1, 2], batch_sizes=[8])
    measured = profiles({"mlp": model}, digits.train, points=points, folder=tmp_path, steps=3, repetitions=1)
    assert [(one.share.nodes, one.share.rows, one.share.shards) for one in measured] == [
        (1, 8, 2),
        (2, 8, 2),
        (1, 4, 1),
        (2, 4, 1),
        (2, 2, 1),
        (2, 1, 1),
    ]
    for one in (one for one in measured if one.share.nodes == 2):
        num_bytes = 4 * (64 * 16 + 16 + 16 * 10 + 10)
        assert 0 <= sum(part.size_bytes for part in one.parts) - num_bytes <= 8  # the tail goes with it
        times = [part.ready_s for part in one.parts]
        assert 0 < times[0] <= times[-1] < max(one.step_seconds)
    schema = json.loads(files("dist_relu.scaling").joinpath("profile.schema.json").read_text())
    lines = (tmp_path / "profiles.jsonl").read_text().splitlines()
    for line in lines:
        jsonschema.validate(json.loads(line), schema)
        assert json.loads(Profile.of_json(json.loads(line)).line()) == json.loads(line)
    again = profiles({"mlp": model}, digits.train, points=points, folder=tmp_path, steps=3, repetitions=1)
    assert again == measured


@pytest.mark.parametrize(("name", "value", "least"), [("steps", 1, 2), ("warm_up", 0, 1), ("repetitions", 0, 1)])
def test_numbers_that_make_no_profile_are_refused(
    digits: dr.data.Split, tmp_path: Path, name: str, value: int, least: int
) -> None:
    with pytest.raises(ValueError, match=f"{name}={value}: must be at least {least}"):
        profiles({}, digits.train, points=[], folder=tmp_path, **{name: value})  # type: ignore[arg-type]


def test_gradients_of_half_the_bytes_wait_half_as_long_for_the_wire() -> None:
    slow = Network(name="slow", latency_s=0.0, bytes_per_s=1e6, message_s=0.0)
    whole, half = (forecast(POINT, all_rows(), Cluster(network=slow, sent=sent), [8])[0] for sent in (1.0, 0.5))
    assert half.step.exchange_s == pytest.approx(whole.step.exchange_s / 2)
    assert half.seconds.value < whole.seconds.value
    assert half.limit == whole.limit == "bandwidth"


def test_with_a_network_that_costs_nothing_all_workers_are_used() -> None:
    found = forecast(POINT, all_rows(), Cluster(network=FAST), [1, 2, 8, 64, 128])
    assert [(one.nodes, one.rows) for one in found] == [(1, 64), (2, 32), (8, 8), (64, 1)]  # no batch for 128
    for one in found:
        assert one.efficiency.value == pytest.approx(1, rel=1e-4)
        assert one.limit == "nothing"


def test_what_does_not_shrink_with_the_rows_limits_the_speed_up() -> None:
    found = forecast(POINT, all_rows(fixed_s=16e-3), Cluster(network=FAST), [1, 64])
    assert found[1].speed_up.value == pytest.approx(80 / 17)
    assert found[1].limit == "small shards"


def test_slow_links_limit_it_and_larger_batches_help() -> None:
    slow = Network(name="slow", latency_s=0.0, bytes_per_s=1e8, message_s=0.0)
    (eight,) = forecast(POINT, all_rows(), Cluster(network=slow), [8])
    assert eight.limit == "bandwidth"
    exposed_s = 2 * 7 / 8 * SIZE_BYTES / 1e8  # by halving and doubling, or by owners of eighths
    assert eight.seconds.value == pytest.approx(8e-3 + exposed_s, rel=1e-6)
    assert eight.enough_batch == pytest.approx(8 * exposed_s / 0.25e-3, rel=0.02)


def test_a_gradient_may_leave_in_other_parts_where_there_are_other_shards() -> None:
    cluster = Cluster(network=replace(FAST, bytes_per_s=1e8))
    halves = [Part(ready_s=share * 8e-3, size_bytes=SIZE_BYTES / 2) for share in (0.5, 0.9)]
    mixed = [replace(one, parts=halves) if one.share == made(2, 8).share else one for one in all_rows()]
    assert forecast(POINT, mixed, cluster, [2, 8]) == forecast(POINT, all_rows(), cluster, [2, 8])


def test_hosts_that_share_cores_are_no_faster_together() -> None:
    cluster = Cluster(network=FAST, shared_cores=2)
    found = forecast(POINT, all_rows(), cluster, [1, 2, 4, 8])
    assert [one.speed_up.value for one in found] == pytest.approx([1, 2, 2, 2])
    assert found[-1].limit == "shared cores"


@pytest.mark.long
def test_weak_scaling_gives_every_worker_the_same() -> None:
    point = weak(["mlp"], [4], batch_sizes=[64])[0]
    found = forecast(point, all_rows(), Cluster(network=FAST), [1, 4096])
    assert [(one.batch_size, one.rows) for one in found] == [(64, 64), (64 * 4096, 64)]
    assert found[1].speed_up.value == pytest.approx(4096)


def test_a_price_is_that_of_all_nodes() -> None:
    (four,) = forecast(POINT, all_rows(), Cluster(network=FAST), [4])
    assert four.cost_per_million(3.6) == pytest.approx(4 * 3.6 / 3600 * 1e6 / 4000)


def test_a_model_that_was_not_measured_is_told() -> None:
    other = Point(regime="strong", model="cnn", backend="local", workers=1, batch_size=64, shards=8)
    with pytest.raises(ValueError, match="There is no profile of cnn with 64 rows"):
        forecast(other, all_rows(), Cluster(network=FAST), [1])

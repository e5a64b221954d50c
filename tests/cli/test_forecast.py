"""`dist-relu forecast` tells from what was measured how training would scale elsewhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dist_relu.cli.forecast import doubts, table
from dist_relu.scaling import Cluster, Network, forecast
from tests.cli.test_cli import call
from tests.scaling.test_experiment import BUSY, measurement
from tests.scaling.test_forecast import POINT, all_rows


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """What `dist-relu scale` leaves, as far as forecasts need it."""
    (tmp_path / "measurements.jsonl").write_text(measurement(POINT, 0, 0.064).line() + "\n")
    (tmp_path / "profiles.jsonl").write_text("".join(one.line() + "\n" for one in all_rows()))
    return tmp_path


def test_a_forecast_is_shown_and_written(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, output, errors = call(capsys, "forecast", str(measured), "--nodes", "1,8", "--network", "10G", "--price", "2")
    assert (code, errors) == (0, "")
    assert "mlp, batch 64" in output
    assert "30 us, 1177 MB/s" in output
    written = json.loads((measured / "forecast.json").read_text())
    rows = written["series"]["mlp, batch 64"]
    assert [row["nodes"] for row in rows] == [1, 8]
    assert rows[1]["price"]["hour"] == 16
    assert {path.name for path in measured.iterdir() if path.suffix in {".png", ".pdf"}} == {
        f"{name}{suffix}" for name in ("forecast", "node-costs") for suffix in (".png", ".pdf")
    }


def test_large_numbers_have_all_their_digits() -> None:
    (row,) = forecast(POINT, all_rows(), Cluster(network=Network.of_ethernet("100G")), [8])
    fast = replace(row, speed_up=row.speed_up * (1873 / row.speed_up.value))
    cells = [cell for column in table([fast], "mlp", 1434, None).columns for cell in column.cells]
    assert {"1,873", "11,472"} < set(cells)
    assert not [cell for cell in cells if "e+" in str(cell)]


@pytest.mark.long
def test_nodes_that_are_too_many_for_a_batch_are_told(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, output, _ = call(capsys, "forecast", str(measured), "--nodes", "1,64,128,256")
    assert code == 0
    assert "mlp, batch 64: has no sample for each worker of 128 nodes or more." in output


def test_profiles_that_others_have_disturbed_are_told() -> None:
    five_times = [replace(one, repetition=number) for one in all_rows() for number in range(5)]
    assert doubts(five_times) == []
    (told,) = doubts([replace(five_times[0], company=BUSY), *five_times[1:]])
    assert f"Others used the machine while 1 of {len(five_times)} profiles were measured" in told


def test_workers_that_were_not_measured_beside_one_another_are_told() -> None:
    five_times = [replace(one, repetition=number) for one in all_rows() for number in range(5)]
    (told,) = doubts(five_times, workers_per_node=2)
    assert told.endswith("Measure them beside one another: dist-relu scale --at-once 2.")
    beside = [replace(one, share=replace(one.share, at_once=2)) for one in five_times]
    assert doubts(five_times + beside, workers_per_node=2) == []


def test_intervals_of_few_repetitions_are_told() -> None:
    (told,) = doubts(all_rows())
    assert "fewer than 5 repetitions" in told


@pytest.mark.long
def test_steps_are_simulated_besides(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--nodes", "1,8,64", "--simulate", "3", "--mtbf", "1000", "--recovery", "10s"]
    code, output, errors = call(capsys, "forecast", str(measured), *options)
    assert (code, errors) == (0, "")
    assert "simulated" in output
    written = json.loads((measured / "forecast.json").read_text())
    assert [len(one["step_seconds"]) for one in written["simulated"]["mlp, batch 64"]] == [3, 3, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mtbf", "1000"], "--mtbf is for a simulation: pass --simulate STEPS with it."),
        (["--recovery", "5s"], "--recovery is for failures: pass --mtbf HOURS with it."),
        (["--nodes", "1,0"], "--nodes 1,0: "),
        (["--nodes", "100000"], "--nodes 100000: no batch has a sample for each worker of so many."),
        (["--network", "fast"], "'fast' is no network: expected a rate"),
        (["--network", "fast"], "Or one of edr, hdr, ndr, aries, slingshot-10, efa."),
        (["--network", "fast"], "Or measured: as scale has found it"),
        (["--network", "measured"], "No messages between hosts were measured"),
    ],
)
def test_what_makes_no_sense_is_told(
    measured: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    code, _, errors = call(capsys, "forecast", str(measured), *options)
    assert code == 2
    assert message in errors


@pytest.mark.parametrize("line", ["3", '{"seconds": "x"}', "null", '{"schema": 1, "parts": 1}'])
def test_a_line_that_is_no_measurement_is_told(measured: Path, capsys: pytest.CaptureFixture[str], line: str) -> None:
    for name in ("measurements.jsonl", "profiles.jsonl"):
        content = (measured / name).read_text()
        (measured / name).write_text(f"{line}\n{content}")
        code, _, errors = call(capsys, "forecast", str(measured))
        assert code == 2
        assert f"{measured / name}, line 1 is no measurement: it" in errors
        (measured / name).write_text(content)


def test_a_folder_without_measurements_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, errors = call(capsys, "forecast", str(tmp_path))
    assert code == 2
    assert "has no measurements. Make some: dist-relu scale --output" in errors

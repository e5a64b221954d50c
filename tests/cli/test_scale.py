"""`dist-relu scale` prints a table, writes it in several forms, and goes on with what it has."""

from __future__ import annotations

from pathlib import Path

import pytest

from dist_relu.cli.scale import left_out
from dist_relu.scaling import strong
from dist_relu.scaling.profile import read_profiles
from tests.cases import chaos, long
from tests.cli.test_cli import call
from tests.ray_clusters import RayCluster

ON_HOSTS = ["--backend", "mpi", "--host", "a:1,b:1"]


def scale(capsys: pytest.CaptureFixture[str], folder: Path, *options: str) -> tuple[int, str, str]:
    few = ["--model", "mlp:16", "--steps", "3", "--warm-up", "1", "--repetitions", "1", "--output", str(folder)]
    return call(capsys, "scale", *few, *options)


@pytest.mark.parametrize(("backend", "regimes"), [*long(("local", "strong")), *chaos(("local,mpi", "strong,weak"))])
def test_what_is_measured_is_shown_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], backend: str, regimes: str
) -> None:
    code, output, errors = scale(capsys, tmp_path, "--workers", "1,2", "--backend", backend, "--regime", regimes)
    assert (code, errors) == (0, "")
    header = next(line for line in output.splitlines() if "speed-up" in line)
    assert header.split()[-4:] == ["workers", "ms", "speed-up", "efficiency"]
    assert sum("100% (100–100)" in line for line in output.splitlines()) == len(
        [name for name in backend.split(",") for _ in regimes.split(",")]
    )
    assert "other bits" not in output
    assert "Intervals of fewer than 5 repetitions hold less often than 95 %" in output
    expected = ["experiment.json", "extrap.txt", "measurements.jsonl", "mlperf.log", "profiles.jsonl"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [*expected, "scaling.csv", "scaling.pdf", "scaling.png"]


@pytest.mark.long
def test_workers_are_measured_beside_one_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scale(capsys, tmp_path, "--workers", "1", "--at-once", "2")[0] == 0
    assert {one.share.at_once for one in read_profiles(tmp_path)} == {1, 2}


def test_workers_that_are_not_measured_on_nodes_are_told() -> None:
    points = strong(["mlp:16"], [2, 4, 6], backends=["mpi"], nodes=[1, 2, 4])
    fitting = [point for point in points if point.nodes != 1 or point.workers < 4]
    assert left_out(fitting, [2, 4, 6], [1, 2, 4]) == [
        "Left out: 4, 6 workers on 1 node, for which too few have room.",
        "Left out: 2, 6 workers on 4 nodes, which can't have as many each.",
    ]


@pytest.mark.chaos
def test_actors_of_a_ray_cluster_are_measured_too(
    ray_cluster: RayCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, output, _ = scale(capsys, tmp_path, "--workers", "1,2", "--backend", "ray")
    assert code == 0
    assert "mlp:16, strong, ray, " in output


@pytest.mark.long
def test_nodes_that_a_ray_cluster_has_not_are_told_before_anything_is_measured(
    ray_cluster: RayCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, errors = scale(capsys, tmp_path / "new", "--workers", "2", "--nodes", "1,2", "--backend", "ray")
    assert code == 2
    assert "--workers 2 on --nodes 2 need 1 CPU on each. This Ray cluster's nodes have: 4." in errors
    assert not (tmp_path / "new").exists()


@pytest.mark.long
def test_the_same_command_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scale(capsys, tmp_path, "--workers", "1")[0] == 0
    before = (tmp_path / "measurements.jsonl").read_text()
    assert scale(capsys, tmp_path, "--workers", "1")[0] == 0
    assert (tmp_path / "measurements.jsonl").read_text() == before
    code, _, errors = scale(capsys, tmp_path, "--workers", "1", "--seed", "5")
    assert code == 2
    assert "holds another experiment: --seed was 0, and is 5 now." in errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "1,0"], "--workers 1,0: "),
        (["--workers", "1,4", "--shards", "2"], "2 shards leave 2 of 4 workers without work"),
        (["--workers", "1,2", "--batch-size", "4096"], "Pass --batch-size <= 1438, or more data."),
        (["--workers", "1,2", "--regime", "weak", "--shards", "2"], "--shards is for --regime strong, not weak."),
        (["--workers", "1,2", "--spread"], "--spread is for --backend ray, not local."),
        (["--workers", "1,2", "--mpirun", "mpirun"], "--mpirun is for --backend mpi, not local."),
        (["--workers", "2", "--backend", "mpi", "--mpirun", "'"], "--mpirun ': no closing quotation."),
        (["--workers", "2", "--backend", "serial"], "'serial' is none of local, mpi, ray"),
        (["--workers", "1", "--at-once", "2,x"], "--at-once 2,x: "),
        (["--workers", "2", "--nodes", "2"], "--nodes is for --backend mpi or ray, not local."),
        (["--workers", "2", "--nodes", "2", "--backend", "ray", "--spread"], "--nodes and --spread both say where"),
        (
            ["--workers", "2", "--nodes", "2", "--backend", "mpi"],
            "--nodes 2 needs as many hosts, not 0. Name them with",
        ),
        ([*ON_HOSTS, "--workers", "1,2", "--nodes", "1,3"], "--nodes 3 needs as many hosts, not 2."),
        ([*ON_HOSTS, "--workers", "1,3", "--nodes", "1,2"], "--nodes 2 divides none of --workers 1,3. Pass a multiple"),
        (
            [*ON_HOSTS, "--workers", "2,3", "--nodes", "1,2"],
            "--workers 2 on --nodes 1: too few hosts have room for 2 ranks",
        ),
        (["--workers", "1", "--warm-up", "0"], "Invalid value for '--warm-up'"),
        ([], "Missing option '--workers'"),
    ],
)
def test_what_makes_no_sense_is_told_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    code, _, errors = scale(capsys, tmp_path / "new", *options)
    assert code == 2
    assert message in errors
    assert not (tmp_path / "new").exists()

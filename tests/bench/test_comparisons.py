"""Sides of a comparison do the same work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from rich.table import Table

from dist_relu.bench import parallel, starting, step, sums
from dist_relu.bench.cases import CASES, Case
from dist_relu.bench.footprint import descendants, proportional_bytes
from dist_relu.bench.jax_side import with_jit
from dist_relu.bench.networks import beginning, flops
from dist_relu.bench.ours import on_one_worker
from dist_relu.bench.sides import Side, Start, running
from dist_relu.bench.sklearn_side import expresses
from dist_relu.bench.sklearn_side import with_threads as with_sklearn
from dist_relu.bench.step import Timing
from dist_relu.bench.torch_side import with_threads
from dist_relu.cli import bench_report
from dist_relu.cli.bench_tables import as_markdown
from dist_relu.errors import BackendError
from tests.cases import chaos
from tests.cli.test_cli import call
from tests.programs import TIMEOUT_S, mpirun_on_nodes, run

SMALL = [case for case in CASES if case.name not in ("mlp-medium", "mlp-large")]
"""All kinds of networks are among them."""

_STEPS = 5


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (Case("", "mlp", (5,), 2, (3,), 4), 2 * 2 * (3 * (3 * 5 + 5 * 4) - 3 * 5)),
        (Case("", "rnn", (5,), 2, (7, 3), 4), 2 * 2 * (3 * (7 * 3 * 5 + 7 * 5 * 5 + 5 * 4) - 7 * 3 * 5)),
        (
            Case("", "strided", (6,), 2, (8, 8, 3), 4),
            2 * 2 * (3 * (16 * 25 * 3 * 6 + 16 * 6 * 4) - 16 * 25 * 3 * 6),
        ),
        (
            Case("", "cnn", (), 2, (8, 8, 16), 4),
            2 * 2 * (3 * (36 * 4 * 16 * 32 + 36 * 1 * 32 * 64 + 256 * 128 + 128 * 4) - 36 * 4 * 16 * 32),
        ),
    ],
    ids=["mlp", "rnn", "strided", "Winograd"],
)
def test_operations_are_those_of_products_forward_and_twice_backward_but_for_the_data(
    case: Case, expected: int
) -> None:
    assert flops(case) == expected


def test_tables_in_markdown_have_a_title_a_head_and_rows() -> None:
    table = Table("case", "ms", title="Steps")
    table.add_row("mlp", "1.5")
    assert as_markdown(table) == "Steps:\n\n| case | ms |\n| --- | --- |\n| mlp | 1.5 |\n"


@pytest.mark.peer
@pytest.mark.parametrize("case", SMALL, ids=[case.name for case in SMALL])
def test_all_sides_have_the_same_losses_from_step_to_step(case: Case, tmp_path: Path) -> None:
    for package in ("torch", "jax", "sklearn"):
        pytest.importorskip(package)
    # PyTorch pads the other sides of images than we do where strides leave padding that is odd: what it learns from
    # noise is alike, not the same. And its RNN has two biases.
    tolerances = {"resnet": 0.05, "rnn": 5e-3}
    numbers = beginning(case, tmp_path / "numbers.npy")
    with on_one_worker(0) as ours, with_threads(0) as torch, with_jit(0) as jax, with_sklearn(0) as sklearn:
        sides: list[Side] = [ours, torch, jax, *([sklearn] if expresses(case) else [])]
        for side in sides:
            side.prepare(case, numbers)
        losses = np.array([[side.train(1), side.train(_STEPS)] for side in sides])
    np.testing.assert_allclose(losses[1], losses[0], rtol=tolerances.get(case.kind, 1e-5))
    for others in losses[2:]:
        np.testing.assert_allclose(others, losses[0], rtol=1e-4)


@pytest.mark.peer
def test_bench_step_times_all_sides_and_says_what_they_used(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    code, out, err = call(
        capsys, *["bench", "step", "--rounds", "1", "--case", "policy-1", "--json", str(tmp_path / "step.json")]
    )
    assert code == 0, err
    assert "policy-1" in out
    report = json.loads((tmp_path / "step.json").read_text())
    assert report["instruction_sets"].keys() == {"ours", "torch", "jax"}
    (row,) = report["rows"]
    assert row["ours_ms"] > 0
    assert row["ratios"].keys() == row["peers_ms"].keys() == {"torch", "jax"}
    assert row["bounds"] == {name: pytest.approx(ratio / row["peak_share"]) for name, ratio in row["ratios"].items()}


@pytest.mark.peer
def test_bench_parallel_measures_time_memory_and_start_of_all_sides(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for package in ("torch", "jax", "sklearn"):
        pytest.importorskip(package)
    options = "--rounds", "1", "--case", "mlp-tiny", "--json", str(tmp_path / "parallel.json")
    code, out, err = call(capsys, "bench", "parallel", *options)
    assert code == 0, err
    assert "torch ddp MB" in out
    (row,) = json.loads((tmp_path / "parallel.json").read_text())["rows"]
    assert row["timing"]["ratios"].keys() == {"torch", "torch ddp", "jax", "sklearn"}
    assert row["footprints"].keys() == {"ours", *row["timing"]["ratios"]}
    assert all(each["first_step_s"] > 0.1 and each["peak_bytes"] > 5e7 for each in row["footprints"].values())


def test_memory_of_several_processes_counts_what_they_share_once() -> None:
    program = "import os, signal; x = b'1' * 80_000_000; os.fork(); print(flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(2)] == [b"\n", b"\n"]
            pids = descendants([process.pid])
            assert len(pids) == 2
            assert 80e6 < sum(map(proportional_bytes, pids)) < 140e6
        finally:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("backend", chaos("local", "mpi"))
def test_bench_comm_holds_sums_against_others_and_against_memory(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, backend: str
) -> None:
    code, out, err = call(capsys, "bench", "comm", "--backend", backend, "--output", str(tmp_path))
    assert code == 0, err
    assert f"Sum over 2 workers of one node, {backend}" in out
    rows = json.loads((tmp_path / "sums.json").read_text())["rows"]
    assert [row["size_bytes"] for row in rows] == [4_000, 40_000, 400_000, 4_000_000, 40_000_000]
    assert all(row["ours_ms"] > 0 and row["bound_ms"] > 0 for row in rows)
    assert ("MPI_Allreduce" in rows[0]["peers_ms"]) == (backend == "mpi")
    assert {path.name for path in tmp_path.iterdir()} == {"sums.json", "sums.png", "sums.pdf"}


def test_bench_comm_refuses_a_worker_alone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = call(capsys, "bench", "comm", "--workers", "1,2", "--output", str(tmp_path / "new"))
    assert code == 2
    assert "--workers 1,2: a worker alone has nothing to add up." in err
    assert not (tmp_path / "new").exists()


@pytest.mark.chaos
def test_bench_comm_goes_over_the_nodes_of_a_job(tmp_path: Path) -> None:
    command = ["-m", "dist_relu", "bench", "comm", "--output", str(tmp_path)]
    done = run(mpirun_on_nodes("ab", sys.executable, *command))
    assert done.returncode == 0, done.stderr
    assert "Sum over 2 workers of 2 nodes, mpi" in done.stdout
    assert len(json.loads((tmp_path / "sums.json").read_text())["rows"]) == 5


@pytest.mark.long
def test_what_was_measured_outlasts_a_backend_that_fails(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(backend: str, *arguments: object) -> Iterator[list[sums.Timing]]:
        if backend == "ray":
            raise BackendError("There is no Ray.")
        about = {"backend": backend, "nodes": 1, "workers": 2, "size_bytes": 4_000}
        yield [sums.Timing(**about, ours_ms=1.0, bound_ms=0.5, peers_ms={})]  # type: ignore[arg-type]

    monkeypatch.setattr(sums, "run", measured)
    code, out, err = call(capsys, "bench", "comm", "--backend", "local,ray", "--output", str(tmp_path))
    assert code == 1
    assert "Sum over 2 workers of one node" in out
    assert "There is no Ray." in err
    written = json.loads((tmp_path / "sums.json").read_text())
    assert (len(written["rows"]), written["is_complete"]) == (1, False)


@contextmanager
def its_process(number: int) -> Iterator[Any]:
    """Make a side that tells its process, and does nothing else."""
    yield Mock(pid=os.getpid())


@pytest.mark.long
def test_sides_hear_nothing_of_ctrl_c_from_their_first_moment_on() -> None:
    with running("a side", Start(its_process), os.sched_getaffinity(0), {}) as side:
        os.kill(side.pids[0], signal.SIGINT)
        assert side.ask(attrgetter("pid")) == side.pids[0]


def ended_in_the_second(name: str) -> Callable[..., object]:
    """Stands in for what measures something: in the second one, the user presses Ctrl-C."""
    calls = iter(range(2))

    def measure(*arguments: object) -> object:
        if next(calls):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(TIMEOUT_S)
        return 1.5 if name == "start" else Timing("policy-1", 1.5, {}, {}, 0.5, {})

    return measure


@pytest.mark.parametrize(
    ("name", "module", "function"),
    [("step", step, "time_case"), ("parallel", parallel, "time_case"), ("start", starting, "_seconds")],
)
def test_what_was_measured_outlasts_ctrl_c(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    module: ModuleType,
    function: str,
) -> None:
    @contextmanager
    def running(*arguments: object) -> Iterator[Mock]:
        yield Mock(ask=lambda question: 1.0, instruction_set=lambda: "AVX2")

    monkeypatch.setattr(module, "running", running, raising=False)
    monkeypatch.setattr(module, function, ended_in_the_second(name))
    cases = [] if name == "start" else ["--peer", "", "--case", "policy-1", "--case", "policy-64"]
    path = tmp_path / "found.json"
    code, out, err = call(capsys, "bench", name, *cases, "--json", str(path))
    assert code == 130
    assert f"interrupted; what was measured until then is above, and in {path}." in err
    assert "(incomplete)" in out
    assert "1.50" in out
    written = json.loads(path.read_text())
    assert (len(written["rows"]), written["is_complete"]) == (1, False)


def test_bench_all_keeps_what_it_had_when_it_was_interrupted(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tables(*arguments: object) -> Iterator[Iterator[list[Table]]]:
        yield iter([[Table("first", title="One")]])

        def second() -> Iterator[list[Table]]:
            yield [Table("second", title="Two")]
            raise KeyboardInterrupt

        yield second()

    monkeypatch.setattr(bench_report, "_tables", tables)
    monkeypatch.setattr(bench_report, "check_peer_installed", lambda *arguments: None)
    monkeypatch.setattr(bench_report, "_heading", lambda rounds: "")
    code, *_ = call(capsys, "bench", "all", "--output", str(tmp_path / "bench.md"))
    assert code == 130
    lines = [line for line in (tmp_path / "bench.md").read_text().splitlines() if line]
    assert lines[0] == "One:"
    assert lines[3] == "Two (incomplete):"
    assert lines[-1] == "Incomplete: it was ended before all was measured."

"""What `dist-relu doctor` makes of several nodes, and the command itself from end to end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dist_relu.doctor import survey, watchdog
from dist_relu.doctor.finding import Finding, State
from dist_relu.doctor.ray import content_of, survey_of
from dist_relu.doctor.survey import Link, Process, Survey
from tests.programs import TIMEOUT_S, marked_environment, mpirun, processes_with, run, wait_until

DOCTOR = [sys.executable, "-c", "from dist_relu.cli.main import main; main()", "doctor"]

VERSIONS = {"python": "3.11.7", "dist_relu": "0.1.0", "numpy": "2.4.6", "numba": "0.68.1"}
A = Process(0, "a", "node-a", (0, 1), "EPYC", "openblas (SkylakeX)", VERSIONS)
B = replace(A, rank=1, host="b", node="node-b")
LINK = Link("a", "b", 0.0001, 1e9, 1000, {"eth0": 1100, "lo": 0}, 0.0001)


def test_processes_are_told_by_node() -> None:
    assert survey.check_nodes(Survey("MPI", [A, B, replace(A, rank=2)], [], [])).found == "MPI: 2 on a, 1 on b."


def test_ranks_without_a_core_of_their_own_are_found() -> None:
    assert survey.check_placement([A, replace(A, rank=1), B]).state is State.OK
    crowded = survey.check_placement([A, replace(A, rank=1), replace(A, rank=2), B])
    assert crowded.state is State.WARNING
    assert "3 ranks share 2 hardware threads on a" in crowded.found
    bound = survey.check_placement([replace(A, cores=(0,)), replace(A, rank=1, cores=(0,))])
    assert "2 ranks share 1 hardware thread" in bound.found


@pytest.mark.parametrize(
    ("other", "state", "word"),
    [
        (B, State.OK, "same bits"),
        (replace(B, cpu="Xeon"), State.WARNING, "CPU is EPYC on a but Xeon on b"),
        (replace(B, blas="openblas (Haswell)"), State.WARNING, "BLAS is openblas (SkylakeX) on a"),
        (replace(B, versions={**VERSIONS, "numpy": "2.0.0"}), State.WARNING, "numpy is 2.4.6 on a but 2.0.0 on b"),
        (replace(B, versions={**VERSIONS, "python": "3.11.9"}), State.WARNING, "python is 3.11.7"),
        (replace(B, versions={**VERSIONS, "python": "3.12.1"}), State.FAILURE, "python is 3.11.7"),
        (replace(B, versions={**VERSIONS, "dist_relu": "0.2.0"}), State.FAILURE, "dist_relu is 0.1.0"),
    ],
)
def test_nodes_that_differ_are_found(other: Process, state: State, word: str) -> None:
    finding = survey.check_alike([A, other])
    assert finding.state is state
    assert word in finding.found


def test_slow_networks_are_found() -> None:
    assert survey.check_network([LINK]).found == "a - b: 0.10 ms, 8,000 Mbit/s."
    for slow in (replace(LINK, bytes_per_s=1e7), replace(LINK, latency_s=0.02)):
        finding = survey.check_network([LINK, slow])
        assert finding.state is State.WARNING
        assert "The way to b is slow" in finding.advice


def test_bytes_that_no_interface_counted_did_not_cross_the_network() -> None:
    fine = survey.check_transport([LINK], "MPI")
    assert fine.state is State.OK
    assert "through eth0 (to b)" in fine.found
    finding = survey.check_transport([LINK, replace(LINK, target="c", counted_bytes={"eth0": 10})], "MPI")
    assert finding.state is State.WARNING
    assert "sent to c" in finding.found
    assert "UCX_TLS=tcp,self" in finding.advice


def test_clocks_that_differ_are_found() -> None:
    assert survey.check_clocks([LINK]).state is State.OK
    finding = survey.check_clocks([replace(LINK, clock_offset_s=2.5), replace(LINK, target="c", clock_offset_s=-1)])
    assert finding.state is State.WARNING
    assert finding.found == "Compared with a: b is 2.50 s ahead; c is 1.00 s behind."


def test_what_is_wrong_on_other_nodes_alone_is_told_with_their_names() -> None:
    fine, bad = Finding("cores", State.NOTE, "Two."), Finding("memory", State.FAILURE, "None left.", "Buy some.")
    assert survey.check_elsewhere(Survey("MPI", [A, B], [], [("b", fine)]), []).state is State.OK
    both = Survey("MPI", [A, B], [], [("b", fine), ("c", bad)])
    finding = survey.check_elsewhere(both, [fine])
    assert finding.state is State.FAILURE
    assert (finding.found, finding.advice) == ("On c, memory: None left.", "Buy some.")
    assert survey.check_elsewhere(both, [bad]).state is State.OK


def test_a_survey_survives_as_json() -> None:
    asked = Survey("Ray", [A, B], [LINK], [("b", Finding("memory", State.OK, "Fine.", "", {"bytes": 1}))])
    assert survey_of(json.loads(json.dumps(content_of(asked)))) == asked
    assert [check.subject for check in survey.judge(asked, [])] == [
        *("nodes", "placement", "alike", "other nodes", "network", "transport", "clocks")
    ]


def test_links_are_measured_with_small_and_large_messages() -> None:
    sizes: list[int] = []

    def exchange(buffer: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> None:
        sizes.append(buffer.size)

    link = survey.measure("a", "b", exchange, lambda: time.time() + 100)
    assert min(sizes) == 8
    assert link.sent_bytes == sum(sizes) - 8
    assert abs(link.clock_offset_s - 100) < 1


def test_counters_of_all_interfaces(tmp_path: Path) -> None:
    for name, count in (("net/eth0/statistics/tx_bytes", 5), ("infiniband/mlx5_0/ports/1/counters/port_xmit_data", 3)):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(f"{count}\n")
    assert survey.interface_bytes(tmp_path) == {"eth0": 5, "mlx5_0": 12}


# The watchdog of MPI_Init


def watch(process: subprocess.Popen[bytes], timeout_s: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-I", "-S", watchdog.__file__, str(process.pid), timeout_s, "Rank 1 (on b)"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_rank_that_mpi_init_keeps_is_ended_and_named() -> None:
    with subprocess.Popen(["sleep", "1000"]) as kept:
        with watch(kept, "0.2") as dog:
            assert dog.stderr is not None
            errors = dog.stderr.read()
        assert kept.wait() == -signal.SIGKILL
    assert errors.startswith(b"Rank 1 (on b): MPI_Init did not return within 0.2 seconds.")


def test_a_rank_that_comes_through_is_let_go() -> None:
    with subprocess.Popen(["sleep", "1000"]) as passed:
        assert watch(passed, "1000").communicate(b"")[1] == b""
        assert passed.poll() is None
        passed.kill()


# The command


@pytest.mark.chaos
def test_the_command_proves_that_training_works(tmp_path: Path) -> None:
    path = tmp_path / "findings.json"
    done = run([*DOCTOR, "--json", str(path)])
    assert done.returncode == 0, done.stdout + done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert done.stdout.isascii()
    assert done.stdout.splitlines()[-1].startswith("Training will work.")
    content = json.loads(path.read_text())
    states = {finding["subject"]: finding["state"] for finding in content["findings"]}
    assert content["works"]
    assert states["training"] == states["MPI"] == states["shared memory"] == "ok"
    assert {"cores", "threads", "BLAS", "memory", "/dev/shm", "procfs", "clock", "disk", "data", "Ray"} <= states.keys()


def test_a_file_that_can_not_be_written_is_refused_before_the_work() -> None:
    done = run([*DOCTOR, "--json", "/nowhere/findings.json"])
    assert (done.returncode, done.stdout) == (2, "")
    assert "--json /nowhere/findings.json can't be written: the folder /nowhere does not exist" in done.stderr


@pytest.mark.long
def test_the_command_fails_when_an_installed_backend_is_broken(tmp_path: Path) -> None:
    (tmp_path / "mpi4py").mkdir()
    (tmp_path / "mpi4py" / "__init__.py").write_text("raise ImportError('cannot load MPI library')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "RAY_ADDRESS": "127.0.0.1:1"}
    done = subprocess.run(DOCTOR, capture_output=True, text=True, env=environment, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 1
    assert "failure MPI" in done.stdout
    assert "cannot load MPI library" in " ".join(done.stdout.split())
    assert "Training will not work, or not everywhere. See MPI" in done.stdout


@pytest.mark.long
def test_under_mpirun_all_ranks_are_looked_at_and_rank_0_speaks() -> None:
    done = run(mpirun(2, *DOCTOR))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("placement") == 1
    assert "runs 2 ranks" in done.stdout


@pytest.mark.long
def test_a_rank_that_does_not_answer_is_named() -> None:
    program = (
        "import time, dist_relu.doctor.mpi_survey as m\n"
        "from dist_relu.errors import BackendError\n"
        "if m.launched_rank() == 1:\n"
        "    from mpi4py import MPI\n"
        "    time.sleep(1000)\n"
        "try:\n"
        "    m.survey(list, answer_timeout_s=0.5)\n"
        "except BackendError as error:\n"
        "    print(error, flush=True)\n"
        "    m.abort()\n"
    )
    done = run(mpirun(2, sys.executable, "-c", program))
    assert done.returncode == 1
    assert "Rank 1 (on a node that did not say its name) did not answer within 0.5 seconds" in done.stdout


def test_ctrl_c_ends_the_command_and_what_it_started() -> None:
    mark = f"doctor-{os.getpid()}"
    with subprocess.Popen(
        DOCTOR, env=marked_environment(mark), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_until(lambda: len(processes_with(mark)) > 1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130
    assert "dist-relu: error: interrupted" in errors
    wait_until(lambda: not processes_with(mark))

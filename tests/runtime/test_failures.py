"""Whatever dies, the user is told, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

import dist_relu as dr
from dist_relu.runtime.backends.local.supervisor import descendants
from dist_relu.runtime.world import World
from tests.cases import long
from tests.programs import (
    TIMEOUT_S,
    TRAIN,
    marked_environment,
    mpirun,
    mpirun_on_nodes,
    processes_with,
    run,
    shared_files,
    unused_files,
    wait_for_line,
    wait_until,
)

ENDLESS = [*TRAIN, "--epochs", "1000000", "--shards", "4"]


def pid(world: World, request: None) -> int:
    return os.getpid()


def die_in_the_middle(world: World, request: int) -> None:
    world.barrier.wait()
    if world.rank == request:
        os.kill(os.getpid(), signal.SIGKILL)
    world.barrier.wait()


def start_marked(command: list[str]) -> tuple[subprocess.Popen[str], str]:
    """Start a program whose processes can be told from all others; wait until it trains."""
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=marked_environment(mark)
    )
    wait_for_line(process, "epoch 1/")
    return process, mark


def test_a_killed_worker_is_named() -> None:
    with dr.start(2, backend="local", on_failure="stop") as coordinator:
        pids = coordinator.run(pid, None)
        with pytest.raises(dr.WorkerLost, match=rf"Worker 1 \(host .*, pid {pids[1]}\) was killed by signal 9"):
            coordinator.run(die_in_the_middle, 1)
        with pytest.raises(dr.WorkerLost):
            coordinator.run(pid, None)
    assert not [number for number in pids if Path(f"/proc/{number}").exists()]


def test_a_worker_that_died_between_calls_is_named() -> None:
    with dr.start(2, backend="local", on_failure="stop") as coordinator:
        pids = coordinator.run(pid, None)
        os.kill(pids[0], signal.SIGKILL)
        with pytest.raises(dr.WorkerLost, match=r"Worker 0 .* was killed by signal 9"):
            coordinator.run(pid, None)


def test_workers_that_died_while_they_started_are_no_workers() -> None:
    before = descendants()
    with dr.start(2, backend="local", on_failure="stop") as coordinator:
        started: list[int] = []

        def have_started() -> bool:
            started[:] = [pid for pid in descendants() if pid not in before]
            return len(started) == 3

        wait_until(have_started)
        _supervisor, _first, second = started
        os.kill(second, signal.SIGKILL)
        for _ in range(2):
            with pytest.raises(dr.BackendError, match=r"Worker 1 was killed by signal 9 .* while it started"):
                coordinator.relu([-1.0, 2.0])


def test_closing_ends_the_workers() -> None:
    with dr.start(2, backend="local") as coordinator:
        pids = coordinator.run(pid, None)
    assert not [number for number in pids if Path(f"/proc/{number}").exists()]
    with pytest.raises(RuntimeError, match="closed"):
        coordinator.run(pid, None)


@pytest.mark.long
def test_a_killed_worker_ends_the_program_with_its_name() -> None:
    before = shared_files()
    process, mark = start_marked([*ENDLESS, "--backend", "local", "--workers", "2", "--on-failure", "stop"])
    victim = next(number for number in processes_with(mark) if number != process.pid)
    os.kill(victim, signal.SIGKILL)
    _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    assert f"pid {victim}) was killed by signal 9" in errors
    assert "Traceback" not in errors
    wait_until(lambda: not processes_with(mark))
    wait_until(lambda: not unused_files(before))


@pytest.mark.parametrize(
    "command", [mpirun(2, *ENDLESS), *long(mpirun_on_nodes("abb", *ENDLESS))], ids=["one node", "several nodes"]
)
def test_a_killed_rank_ends_the_job(command: list[str]) -> None:
    before = shared_files()
    process, mark = start_marked(command)
    (victim,) = set(processes_with(mark)) & set(processes_with("PMI_RANK=1\0"))
    os.kill(victim, signal.SIGKILL)
    _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode != 0
    assert f"Worker 1 (host {socket.gethostname()}, pid {victim}) was killed by signal 9; the job ends." in errors
    wait_until(lambda: not processes_with(mark))
    wait_until(lambda: not unused_files(before))


@pytest.mark.parametrize("backend", ["local", *long("serial")])
def test_ctrl_c_ends_the_program_in_one_line(backend: str) -> None:
    process, mark = start_marked([*ENDLESS, "--backend", backend, "--workers", "1"])
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130
    assert errors.strip() == "dist-relu: error: interrupted."
    wait_until(lambda: not processes_with(mark))


@pytest.mark.parametrize("number", [signal.SIGKILL, *long(signal.SIGTERM)])
def test_workers_end_with_their_coordinator(number: signal.Signals) -> None:
    process, mark = start_marked([*ENDLESS, "--backend", "local", "--workers", "2"])
    process.send_signal(number)
    process.communicate(timeout=TIMEOUT_S)
    wait_until(lambda: not processes_with(mark))


@pytest.mark.long
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), *long((signal.SIGTERM, 143))])
def test_mpirun_passes_on_what_asks_for_an_end(number: signal.Signals, code: int) -> None:
    process, mark = start_marked(mpirun(2, *ENDLESS))
    process.send_signal(number)
    _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == code
    assert "dist-relu: error: interrupted." in errors
    wait_until(lambda: not processes_with(mark))


FAIL = """
def fail(world, request):
    if world.rank == world.size - 1:
        raise ValueError('of the user')
    world.barrier.wait()
"""

SCRIPT = """
import dist_relu as dr
from dist_relu.runtime.backends.local.backend import LocalBackend
{before}
coordinator = dr.start()
{after}
"""


@pytest.mark.parametrize(
    ("after", "code", "message"),
    [
        ("import sys; sys.exit(3)", 3, ""),
        *long(
            (
                "try:\n    coordinator.run(fail, None)\nexcept ValueError:\n    coordinator.run(fail, None)",
                1,
                "Raised by",
            ),
            ("raise ValueError('of the user')", 1, "ValueError: of the user"),
            ("coordinator.run(fail, None)", 1, "Raised by worker"),
        ),
    ],
)
@pytest.mark.parametrize("ranks", [2, *long(1, 3)])
def test_the_end_of_the_script_ends_the_job(tmp_path: Path, ranks: int, after: str, code: int, message: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(before=FAIL, after=after))
    done = run(mpirun(ranks, sys.executable, str(script)))
    assert done.returncode == code
    assert message in done.stderr
    assert bool(message) == bool(done.stderr)


def test_other_ranks_run_nothing_of_the_script_behind_start(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import dist_relu as dr\n"
        "try:\n"
        "    dr.start().close()\n"
        "except BaseException:\n"
        "    print('caught')\n"
        "finally:\n"
        "    print('after')\n"
    )
    done = run(mpirun(2, sys.executable, str(script)))
    assert (done.returncode, done.stdout) == (0, "after\n"), done.stderr


@pytest.mark.long
def test_a_rank_that_is_stuck_does_not_keep_the_job_alive(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    stuck = "import time\ndef fail(world, request):\n    if world.rank == 1: raise ValueError\n"
    stuck += "    if world.rank == 2: time.sleep(1000)\n"
    script.write_text(SCRIPT.format(before=stuck, after="coordinator.run(fail, None)"))
    done = run(mpirun(3, sys.executable, str(script)))
    assert done.returncode != 0
    assert "ValueError" in done.stderr


@pytest.mark.long
def test_a_script_may_start_workers_twice_under_mpirun(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import dist_relu as dr\n"
        "for workers in (2, 1, None):\n"
        "    with dr.start(workers) as coordinator:\n"
        "        print(coordinator.workers, coordinator.relu([-1.0, 2.0]).tolist())\n"
    )
    done = run(mpirun(3, sys.executable, str(script)))
    assert done.stdout.splitlines() == ["2 [0.0, 2.0]", "1 [0.0, 2.0]", "3 [0.0, 2.0]"], done.stderr
    assert done.returncode == 0


@pytest.mark.long
def test_a_call_that_is_given_up_on_several_nodes_leaves_the_job_in_order(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import dist_relu as dr\n"
        "from dist_relu import nn, optim\n"
        "def stop(_): raise InterruptedError\n"
        "data = dr.data.load('digits').train\n"
        "for workers in (3, None, 3):\n"
        "    with dr.start(workers) as coordinator:\n"
        "        for on_progress in (stop, None, stop):\n"
        "            model = nn.mlp((1024, 1024), 10)\n"
        "            try:\n"
        "                coordinator.fit(model, data, optim.SGD(), epochs=1, batch_size=100, shards=4,\n"
        "                                on_progress=on_progress)\n"
        "                print(coordinator.nodes, model.sha256())\n"
        "            except InterruptedError:\n"
        "                print('stopped')\n"
    )
    done = run(mpirun_on_nodes("abac", sys.executable, str(script)))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[::3] == lines[2::3] == ["stopped"] * 3
    digests = [line.split() for line in lines[1::3]]
    assert [nodes for nodes, _ in digests] == ["2", "3", "2"]
    assert len({digest for _, digest in digests}) == 1


@pytest.mark.long
def test_more_workers_than_ranks_are_refused(tmp_path: Path) -> None:
    done = run(mpirun(2, *TRAIN, "--workers", "3"))
    assert done.returncode == 2
    assert done.stderr.count("--workers 3, but MPI started 2 ranks. Start the job with mpirun -n 3") == 1

"""The start and the end of MPI jobs: ranks that fail or stay away, MPI beside the user's own, what launchers leave."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

import dist_relu as dr
from dist_relu.runtime.backends import is_under_mpirun
from dist_relu.runtime.backends.mpi import init_watchdog, reaper
from dist_relu.runtime.backends.mpi.launcher import check_not_alone, launched
from tests.cases import long
from tests.programs import TIMEOUT_S, marked_environment, mpirun, mpirun_on_nodes, processes_with, run, wait_until

PREPARE = "import os, sys, time\nrank = os.environ['PMI_RANK']\n"
TRAIN = """
import dist_relu as dr
with dr.start() as coordinator:
    print("ranks", coordinator.run(lambda world, request: world.rank, None), flush=True)
"""
LAUNCHERS = ("PMI_", "PMIX_", "OMPI_", "SLURM_", "MPI_LOCALNRANKS")


def run_ranks(tmp_path: Path, text: str, ranks: int = 2) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.py"
    script.write_text(text)
    return run(mpirun(ranks, sys.executable, str(script)))


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ("if rank == '0': sys.exit(0)", "Rank 0 ended without a call of dist_relu.start(), in which rank 1 waits."),
        *long(
            ("import dist_relu\nif rank == '1': os._exit(0)", "Rank 1 ended without a call of dist_relu.start()"),
            ("import dist_relu, mpi4py.MPI\nif rank == '1': raise ValueError('no data')", "ValueError: no data"),
            ("if rank == '1': raise FileNotFoundError('no data')", "no data"),
            (
                "import dist_relu, mpi4py.MPI\nif rank == '1': sys.exit(3)",
                "Rank 1 ended without a call of dist_relu.start",
            ),
        ),
    ],
)
def test_a_rank_that_ends_before_start_ends_the_job(tmp_path: Path, before: str, message: str) -> None:
    done = run_ranks(tmp_path, f"{PREPARE}{before}\n{TRAIN}")
    assert done.returncode == 1, done.stderr
    assert message in done.stderr
    assert not done.stdout


def test_ranks_may_end_without_a_start(tmp_path: Path) -> None:
    done = run_ranks(tmp_path, "import dist_relu, mpi4py.MPI\nprint('end')")
    assert (done.returncode, done.stdout.count("end"), done.stderr) == (0, 2, "")


def test_an_exception_while_the_ranks_join_ends_the_job(tmp_path: Path) -> None:
    interrupted = "import dist_relu.runtime.backends.mpi.job as job\ndef interrupt(*_): raise KeyboardInterrupt\n"
    done = run_ranks(tmp_path, f"{PREPARE}{interrupted}if rank == '0': job.start_reaper = interrupt\n{TRAIN}")
    assert done.returncode == 1
    assert "KeyboardInterrupt" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, *long(signal.SIGINT)])
def test_a_rank_that_is_ended_while_it_waits_for_others_ends_the_job_and_leaves_no_files(
    tmp_path: Path, number: signal.Signals
) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"{PREPARE}if rank == '1': time.sleep(1000)\n{TRAIN}")
    mark = uuid.uuid4().hex
    with subprocess.Popen(
        mpirun(2, sys.executable, str(script)), stderr=subprocess.DEVNULL, env=marked_environment(mark)
    ) as job:
        files: set[str] = set()
        while not files:
            ranks = set(processes_with(mark)) & set(processes_with("PMI_RANK=0\0"))
            files = {file for rank in ranks for file in init_watchdog.files_of(rank, init_watchdog.launcher_of(rank))}
        time.sleep(1)  # it waits, and the watchdog has looked, which it does every 0.25 s at least
        os.kill(min(ranks), number)  # the first: it started the watchdog
        assert job.wait(TIMEOUT_S) != 0
    wait_until(lambda: not processes_with(mark))
    assert not [file for file in files if Path(file).exists()]


@pytest.mark.parametrize(
    "text",
    [
        f"import mpi4py\nmpi4py.rc.finalize = False\n{TRAIN}\nfrom mpi4py import MPI\nMPI.Finalize()",
        *long(
            f"import mpi4py\nmpi4py.rc.thread_level = 'single'\n{TRAIN}",
            f"from mpi4py import MPI\n{TRAIN}\nMPI.Finalize()",
            f"import mpi4py\nmpi4py.rc.initialize = False\n{TRAIN}",
            f"from mpi4py import MPI\nhalf = MPI.COMM_WORLD.Split(MPI.COMM_WORLD.rank)\n{TRAIN}",
        ),
    ],
    ids=["own-finalize", "single-thread", "finalize", "no-initialize", "split"],
)
def test_scripts_may_use_mpi_themselves(tmp_path: Path, text: str) -> None:
    done = run_ranks(tmp_path, text)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ranks [0, 1]\n", "")


@pytest.mark.long
def test_after_finalize_there_are_no_ranks(tmp_path: Path) -> None:
    done = run_ranks(
        tmp_path,
        f"from mpi4py import MPI\n{TRAIN}\nMPI.Finalize()\n"
        "try:\n    dr.start()\nexcept dr.BackendError as error:\n    print(error)\n",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "This MPI job has ended: the script called MPI.Finalize()" in done.stdout


@pytest.mark.long
def test_functions_that_receive_any_message_get_those_of_functions(tmp_path: Path) -> None:
    text = """
import time
import dist_relu as dr

def gather(world, request):
    from mpi4py import MPI
    comm = MPI.COMM_WORLD
    if comm.rank == 0:
        return sorted(comm.recv() for _ in range(2 * (comm.size - 1)))
    for _ in range(2):
        time.sleep(0.1 * comm.rank)
        comm.send(f"from {comm.rank}", dest=0)

with dr.start() as coordinator:
    print(coordinator.run(gather, None)[0])
"""
    done = run_ranks(tmp_path, text, ranks=3)
    assert done.stdout == "['from 1', 'from 1', 'from 2', 'from 2']\n", done.stderr
    assert done.returncode == 0


@pytest.mark.long
def test_start_may_be_called_in_a_thread(tmp_path: Path) -> None:
    text = """
import atexit, threading
import dist_relu as dr
atexit.register(lambda: print("end", flush=True))

def work():
    with dr.start() as coordinator:
        print("ranks", coordinator.run(lambda world, request: world.rank, None), flush=True)

threading.Thread(target=work).start()
"""
    done = run_ranks(tmp_path, text)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ranks [0, 1]\n")
    assert done.stdout.count("end") == 2


@pytest.mark.long
def test_forked_children_of_ranks_are_no_ranks(tmp_path: Path) -> None:
    text = f"""
import os, sys
{TRAIN}
child = os.fork()
if child == 0:
    for backend in ("mpi", "auto"):
        try:
            dr.start(backend=backend)
        except (dr.BackendError, RuntimeWarning) as error:
            print(error, flush=True)
    sys.exit(0)
os.waitpid(child, 0)
with dr.start() as coordinator:
    print("ranks", coordinator.run(lambda world, request: world.rank, None), flush=True)
"""
    script = tmp_path / "script.py"
    script.write_text(text)
    done = run(mpirun(2, sys.executable, "-W", "error::RuntimeWarning", str(script)))
    assert (done.returncode, done.stderr) == (0, "")
    before, by_name, unnamed, after = done.stdout.splitlines()
    assert before == after == "ranks [0, 1]"
    assert "This process was forked by a rank of an MPI job" in by_name
    assert "PMI_SIZE=2 in the environment" in unnamed


@pytest.mark.long
def test_nodes_need_ranks_whose_threads_may_all_call_mpi(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import mpi4py\nmpi4py.rc.thread_level = 'funneled'\nimport dist_relu as dr\n"
        "try:\n    dr.start()\nexcept dr.BackendError as error:\n    print(error)\n"
    )
    done = run(mpirun_on_nodes("ab", sys.executable, str(script)))
    assert "without, or does not have it, on ranks 0, 1" in done.stdout
    assert (done.returncode, done.stderr) == (0, "")


def test_ranks_of_one_node_can_not_be_reached_from_others(tmp_path: Path) -> None:
    text = """
def listening():
    import os
    from pathlib import Path
    own = {os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if name not in {"0", "1", "2"}
           and os.path.islink(f"/proc/self/fd/{name}")}
    texts = [Path(f"/proc/self/net/{file}").read_text() for file in ("tcp", "tcp6")]
    lines = [line.split() for text in texts for line in text.splitlines()]
    return {line[1] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in own}

before = listening()  # mpirun leaves its own port open in all that it starts
import dist_relu as dr
with dr.start():
    print([place for place in listening() - before if not place.startswith("0100007F:")])
"""
    done = run_ranks(tmp_path, text)
    assert done.stdout == "[]\n", done.stderr


def without_launchers(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name in os.environ:
        if name.startswith(LAUNCHERS):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"PMI_RANK": "0", "PMI_SIZE": "1"},
        {"PMI_RANK": "2", "PMI_SIZE": "4", "PMI_FD": "987"},
        {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"},
        {"PMIX_RANK": "0", "PMIX_NAMESPACE": "slurm.pmix.1.0", "SLURM_JOB_ID": "1", "SLURM_NTASKS": "1"},
        {"PMIX_RANK": "0", "PMIX_SERVER_URI41": "a.0;tcp4://127.0.0.1:1", "PMIX_SERVER_TMPDIR": "/nowhere/at/all"},
        {
            "PMIX_RANK": "0",
            "PMIX_SERVER_URI41": "",
            "PMIX_SERVER_TMPDIR": "/",
            "SLURM_JOB_ID": "1",
            "SLURM_NTASKS": "1",
        },
        {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "4"},
    ],
)
def test_variables_alone_make_no_rank(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    without_launchers(monkeypatch, variables)
    assert not is_under_mpirun()


def test_what_a_launcher_keeps_open_makes_a_rank(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        without_launchers(monkeypatch, {"PMI_RANK": "2", "PMI_SIZE": "4", "PMI_FD": str(ours.fileno())})
        told = launched()
        assert told is not None
        assert (told.rank, told.size) == (2, 4)
    address = {"PMIX_SERVER_URI41": "a.0;tcp4://127.0.0.1:1", "PMIX_SERVER_TMPDIR": str(tmp_path)}
    without_launchers(monkeypatch, {"PMIX_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", **address})
    told = launched()
    assert told is not None
    assert (told.rank, told.size) == (1, 2)


@pytest.mark.parametrize("variable", ["PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"])
def test_one_of_several_ranks_does_not_train_alone_without_a_word(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    without_launchers(monkeypatch, {variable: "4"})
    with pytest.warns(RuntimeWarning, match=f"{variable}=4"), dr.start(1) as coordinator:
        assert coordinator.backend == "local"
    with pytest.raises(dr.BackendError, match=rf"{variable}=4 in the environment.*\(Other 1\.0\) finds no other"):
        check_not_alone(1, "Other 1.0")
    check_not_alone(4, "Other 1.0")
    monkeypatch.setenv("PMI_SIZE", "1")
    check_not_alone(1, "Other 1.0")


@pytest.mark.long
def test_a_rank_that_was_dead_before_the_coroner_looked_is_named() -> None:
    with subprocess.Popen(["true"]) as dead:
        pass
    command = [sys.executable, "-I", "-S", reaper.__file__, "", str(dead.pid), "Worker 7 (host a)"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True, input="")
    assert done.stderr == "Worker 7 (host a) died; the job ends.\n"

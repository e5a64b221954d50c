"""`dist-relu launch`: whatever happens to a rank, the run ends with the same bits, or says why it does not."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from dist_relu.cli.main import main
from dist_relu.runtime.backends.mpi.backend import mpirun_path
from tests.cases import long
from tests.programs import (
    ROOT,
    TIMEOUT_S,
    marked_environment,
    processes_with,
    run,
    shared_files,
    unused_files,
    wait_for_line,
    wait_until,
)

LAUNCH = [sys.executable, "-m", "dist_relu", "launch"]
TRAIN = ["train", "--shards", "4", "--seed", "1"]
CHECKPOINTS = ["--checkpoint", "run", "--every", "20steps"]

HOSTS = """
import os, sys
from pathlib import Path
arguments = sys.argv[1:]
if arguments == ["--version"]:
    sys.exit("HYDRA")
option, hosts, dash_n, ranks, *program = arguments
assert (option, dash_n) == ("-hosts", "-n")
names = [name for host in hosts.split(",") for name, _, slots in [host.partition(":")] for _ in range(int(slots))]
if any(Path(f"{name} is gone").exists() for name in names):
    sys.exit(255)
command = []
for name in names[: int(ranks)]:
    command += [":", "-n", "1", "-env", "DIST_RELU_NODE", name, *program]
os.execv(MPIRUN, [MPIRUN, *command[1:]])
"""
"""An mpirun whose hosts are this one, except those of which a file says that they are gone."""


def launched(mark: str, *options: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*LAUNCH, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**marked_environment(mark), "PYTHONPATH": str(ROOT)},
        cwd=cwd,
    )


def rank_of_job(mark: str, rank: int) -> int:
    """The pid of a rank that trains; its guard is another process."""
    for pid in set(processes_with(mark)) & set(processes_with(f"PMI_RANK={rank}\0")):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"train" in words and not any(b"rank_guard" in word for word in words):
            return pid
    raise AssertionError(f"there is no rank {rank}")


def run_script(folder: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    """What comes of a script under `dist-relu launch`."""
    (folder / "script.py").write_text(text)
    (folder / "mpirun.py").write_text(f"MPIRUN = {mpirun_path()!r}\n{HOSTS}")
    return run([*LAUNCH, *options, "--", "script.py"], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)})


def digest(report: Path) -> str:
    return str(json.loads(report.read_text())["params_sha256"])


@pytest.fixture
def mark() -> str:
    return uuid.uuid4().hex


@pytest.mark.long
@pytest.mark.parametrize("sign", ["run/step-*", "log/epochs.jsonl"])
def test_a_run_whose_rank_was_killed_ends_with_the_same_bits(tmp_path: Path, mark: str, sign: str) -> None:
    """sign: a file that says that it can be killed: a checkpoint, or one that comes before."""
    train = [*TRAIN, "--epochs", "40"]
    main([*train, "--backend", "serial", "--json", str(tmp_path / "undisturbed"), "--quiet"])
    every = "20steps" if sign.startswith("run") else "10epochs"
    results = ["--json", "report", "--log-dir", "log", "--checkpoint", "run", "--every", every]
    job = launched(mark, "-n", "2", "--", *train, *results, cwd=tmp_path)
    wait_until(lambda: bool(list(tmp_path.glob(sign))) or job.poll() is not None)
    victim = rank_of_job(mark, 1)
    os.kill(victim, signal.SIGKILL)
    _, errors = job.communicate(timeout=TIMEOUT_S)
    assert job.returncode == 0, errors
    who = rf"Rank 1 \(host {re.escape(socket.gethostname())}, pid {victim}\) was killed by signal 9 \(Killed\)"
    assert re.search(
        rf"^dist-relu: {who}\. Starting again in 1 s, from (step \d+|the beginning) \(1 of 3\)\.$", errors, re.MULTILINE
    )
    assert digest(tmp_path / "report") == digest(tmp_path / "undisturbed")
    wait_until(lambda: not processes_with(mark))


@pytest.mark.parametrize("number", [signal.SIGTERM, *long(signal.SIGINT, signal.SIGHUP)])
def test_a_signal_ends_the_job_with_a_last_checkpoint(tmp_path: Path, mark: str, number: signal.Signals) -> None:
    job = launched(mark, "-n", "2", "--", *TRAIN, "--epochs", "1000000", *CHECKPOINTS, cwd=tmp_path)
    wait_for_line(job, "epoch 1/")
    job.send_signal(number)
    _, errors = job.communicate(timeout=TIMEOUT_S)
    assert job.returncode == 128 + number
    step = re.search(r"wrote run\. --resume goes on from step ([\d,]+)\.", errors)
    assert step, errors
    assert (tmp_path / f"run/step-{int(step[1].replace(',', '')):09}.safetensors").exists()
    assert "Starting again" not in errors
    wait_until(lambda: not processes_with(mark))


@pytest.mark.long
def test_nothing_is_left_when_the_launcher_is_killed(tmp_path: Path, mark: str) -> None:
    job = launched(mark, "-n", "2", "--", *TRAIN, "--epochs", "1000000", cwd=tmp_path)
    wait_for_line(job, "epoch 1/")
    job.kill()
    job.communicate(timeout=TIMEOUT_S)
    wait_until(lambda: not processes_with(mark))


@pytest.mark.chaos
def test_a_rank_that_stands_still_counts_as_lost(tmp_path: Path, mark: str) -> None:
    job = launched(mark, "-n", "2", "--restarts", "0", "--", *TRAIN, "--epochs", "1000000", cwd=tmp_path)
    wait_for_line(job, "epoch 1/")
    os.kill(rank_of_job(mark, 0), signal.SIGSTOP)
    _, errors = job.communicate(timeout=TIMEOUT_S)
    assert "was stopped by a signal, such as SIGSTOP, and has not gone on for 10 s" in errors
    wait_until(lambda: not processes_with(mark))


@pytest.mark.long
def test_a_rank_that_dies_before_mpi_starts_is_named_and_restarts_are_bounded(tmp_path: Path) -> None:
    before = shared_files()
    die = "import os, signal\nif os.environ['PMI_RANK'] == '1': os.kill(os.getpid(), signal.SIGSEGV)\nsignal.pause()"
    done = run_script(tmp_path, die, "-n", "2", "--restarts", "1")
    assert done.returncode == signal.SIGSEGV
    first, last = done.stderr.splitlines()
    who = r"dist-relu: Rank 1 \(host \S+, pid \d+\) was killed by signal 11 \(Segmentation fault\)"
    assert re.fullmatch(rf"{who}\. Starting again in 1 s \(1 of 1\)\.", first)
    wait_until(lambda: not unused_files(before))
    assert re.fullmatch(rf"{who}\. The restart brought no new checkpoint: giving up\.", last)


@pytest.mark.long
def test_an_error_of_the_program_is_not_tried_again(tmp_path: Path) -> None:
    done = run_script(tmp_path, "raise ValueError('of the user')", "-n", "2")
    assert done.returncode == 1
    assert "ValueError: of the user" in done.stderr
    assert "dist-relu:" not in done.stderr


@pytest.mark.long
def test_a_job_that_does_not_start_is_ended(tmp_path: Path, mark: str) -> None:
    (tmp_path / "script.py").write_text("import time\ntime.sleep(1000)\n")
    job = launched(mark, "-n", "2", "--restarts", "0", "--start-timeout", "1s", "--", "script.py", cwd=tmp_path)
    _, errors = job.communicate(timeout=TIMEOUT_S)
    assert job.returncode != 0
    assert "dist-relu: Not all ranks came through dist_relu.start() within 1 s.\n" in errors
    wait_until(lambda: not processes_with(mark))


@pytest.mark.long
def test_a_host_that_is_gone_is_left_out(tmp_path: Path) -> None:
    die = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "if not Path('b is gone').exists():\n"
        "    if os.environ['DIST_RELU_NODE'] == 'b':\n"
        "        Path('b is gone').touch()\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    signal.pause()\n"
        "print(os.environ['DIST_RELU_NODE'], 'of', os.environ['PMI_SIZE'])\n"
    )
    done = run_script(tmp_path, die, "--host", "a:2,b:1", "--mpirun", f"{sys.executable} mpirun.py")
    assert done.returncode == 0, done.stderr
    assert "Starting again in 1 s, without host b on 2 ranks (1 of 3)." in done.stderr
    assert done.stdout.endswith("a of 2\na of 2\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backend", "ray", "--", "train"], "--backend ray: only MPI jobs are started again."),
        (["--host", "a", "--hosts", __file__, "--", "train"], "--host and --hosts both name hosts."),
        (["--host", "a:x", "--", "train"], "'a:x' is no host: expected a name and how many ranks it may have"),
        (["--host", "a:2,b", "-n", "4", "--", "train"], "-n 4, but the hosts may have 3 ranks."),
        (["--", "trian"], "'trian' is neither a command of dist-relu nor a Python script"),
        (["--", "missing.py"], "There is no script missing.py."),
        (["--", "train", "--epoch", "1"], "No such option '--epoch'"),
        (["--", "train", "--backend", "local"], "--backend local of train: launch starts MPI ranks."),
        (["--mpirun", "/missing", "--", "train"], "/missing can't be run"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_starts(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["launch", *arguments])
    assert end.value.code == 2
    assert message in capsys.readouterr().err

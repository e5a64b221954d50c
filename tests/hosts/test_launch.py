"""`dist-relu launch` on several hosts: one whose link goes down is left out, and the run ends with the same bits."""

from __future__ import annotations

import json
import subprocess
import uuid
from pathlib import Path

import pytest

from tests.hosts.network import HOSTS, hosts
from tests.programs import TIMEOUT_S, TRAIN, marked_environment, processes_with, run, wait_until

OPTIONS = ["--shards", "4", "--seed", "1", "--epochs", "60"]
CHECKPOINTS = ["--checkpoint", "run", "--every", "20steps"]


@pytest.mark.parametrize("moment", ["in training", "while MPI starts"])
def test_a_host_that_is_unplugged_is_left_out(tmp_path: Path, moment: str) -> None:
    undisturbed = run([*TRAIN, *OPTIONS, "--backend", "serial", "--json", str(tmp_path / "undisturbed")])
    assert undisturbed.returncode == 0, undisturbed.stderr
    mark = uuid.uuid4().hex
    options = ["--start-timeout", "20s", "--", "train", *OPTIONS, *CHECKPOINTS, "--json", "report"]
    with subprocess.Popen(
        [HOSTS, "launch", "1+1+1", *options],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=marked_environment(mark),
    ) as job:
        if moment == "in training":
            wait_until(lambda: bool(list(tmp_path.glob("run/step-*"))) or job.poll() is not None)
        else:
            rank = "PMI_RANK=1\0"
            wait_until(lambda: bool(set(processes_with(mark)) & set(processes_with(rank))) or job.poll() is not None)
        hosts("link", "b", "down")
        try:
            _, errors = job.communicate(timeout=TIMEOUT_S)
        finally:
            hosts("link", "b", "up")
            job.kill()
    assert job.returncode == 0, errors
    assert "without host b on 2 ranks" in errors
    reports = [json.loads((tmp_path / name).read_text()) for name in ("report", "undisturbed")]
    assert reports[0]["workers"] == 2
    assert reports[0]["params_sha256"] == reports[1]["params_sha256"]
    wait_until(lambda: not processes_with(mark))

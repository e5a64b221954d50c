"""MPI jobs in which somebody waits for long."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cases import chaos
from tests.programs import TIMEOUT_S, TRAIN, marked_environment, mpirun, mpirun_on_nodes, processes_with, run

LATE_S = 63
SUSPENDED_S = 15.0


@pytest.mark.parametrize("first", chaos("import dist_relu", "from mpi4py import MPI"))
def test_ranks_wait_for_one_that_is_late_and_say_so(tmp_path: Path, first: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"import os, time\n{first}\nimport dist_relu as dr\n"
        f"if os.environ['PMI_RANK'] == '1': time.sleep({LATE_S})\n"
        "with dr.start() as coordinator:\n    print('workers', coordinator.workers)\n"
    )
    done = run(mpirun(3, sys.executable, str(script)))
    assert (done.returncode, done.stdout) == (0, "workers 3\n")
    assert done.stderr == "dist_relu: Rank 0 waits in dist_relu.start() for rank 1 to call it as well.\n"


@pytest.mark.chaos
def test_a_job_on_several_nodes_that_is_suspended_as_a_whole_goes_on(tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    train = [*TRAIN, "--model", "mlp:512,512", "--epochs", "40", "--shards", "4", "--report", str(tmp_path / "report")]
    with subprocess.Popen(
        mpirun_on_nodes("ab", *train), stdout=subprocess.PIPE, text=True, env=marked_environment(mark)
    ) as job:
        assert job.stdout is not None
        while not job.stdout.readline().startswith("epoch 1/"):
            assert job.poll() is None
        processes = processes_with(mark)
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in processes:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            if number == signal.SIGSTOP:
                time.sleep(SUSPENDED_S)
        job.communicate(timeout=TIMEOUT_S)
    assert job.returncode == 0
    assert (tmp_path / "report").exists()

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import TIMEOUT_S

PROGRAM = [sys.executable, "-c", "import dist_relu as dr; print(dr.activations.relu([-1.0, 2.0]))"]


def start(cache: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    return subprocess.Popen(PROGRAM, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.long
def test_processes_that_start_at_once_with_an_empty_cache_fill_it_as_one_does(tmp_path: Path) -> None:
    ended = []
    for count in (1, 4):
        programs = [start(tmp_path / str(count)) for _ in range(count)]
        said = {program.communicate(timeout=TIMEOUT_S) for program in programs}
        ended.append((said, sorted(path.name for path in (tmp_path / str(count)).rglob("*.nbc"))))
    assert ended[0] == ended[1]
    assert ended[0][1], "no kernel was kept"


def test_a_kernel_that_is_loaded_does_not_bring_scipy_along() -> None:
    program = "import sys, dist_relu as dr; dr.activations.relu([-1.0]); print('scipy.linalg' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    )
    assert done.stdout == "False\n", done.stderr

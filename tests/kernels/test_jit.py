from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
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


KERNELS = """
from dist_relu.kernels.jit import kernel, linked_kernel

@linked_kernel
def add_one(x):
    for i in range(x.shape[0]):
        x[i] += 1

@kernel
def add_two(x):
    add_one(x)
    add_one(x)
"""


def test_a_kernel_goes_with_those_that_it_is_linked_to_whichever_were_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "adding.py").write_text(KERNELS)
    monkeypatch.syspath_prepend(tmp_path)
    x = np.zeros(3)
    for lost in ("", "add_one", "add_two"):
        adding = importlib.import_module("adding")
        for file in Path(adding.add_two.stats.cache_path).glob(f"adding.{lost}_*"):
            file.unlink()
        adding.add_two(x)
        del sys.modules["adding"]
    np.testing.assert_array_equal(x, 6)
    with pytest.raises(TypeError, match="from a kernel"):
        adding.add_one(x)

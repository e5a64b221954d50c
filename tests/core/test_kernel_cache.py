"""Compiled kernels are loaded from no folder that others can write to."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from dist_relu.core.kernel_cache import who_else_writes
from tests.programs import run

CALL_KERNEL = "import dist_relu as dr, numpy as np; dr.activations.relu(np.ones(3, np.float32)); print('done')"


def test_a_folder_of_ones_own_is_safe(tmp_path: Path) -> None:
    assert who_else_writes(tmp_path) is None


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o702])
def test_a_folder_that_others_can_write_to_is_not(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(mode)
    assert who_else_writes(folder) == f"others can write to {folder}"


def test_a_folder_that_others_can_replace_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "open" / "own"
    folder.mkdir(parents=True)
    folder.parent.chmod(0o777)
    assert who_else_writes(folder) == f"others can write to {folder.parent}"
    folder.parent.chmod(0o1777)  # as /tmp
    assert who_else_writes(folder) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders away")
def test_a_folder_of_another_user_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    assert who_else_writes(folder) == f"{folder} belongs to another user (number 65534)"


def test_kernels_stay_out_of_a_folder_that_others_can_write_to(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    folder.chmod(0o777)
    done = run([sys.executable, "-c", CALL_KERNEL], env={**os.environ, "NUMBA_CACHE_DIR": str(folder)})
    assert done.stdout == "done\n"
    assert f"NUMBA_CACHE_DIR={folder} is not used: others can write to {folder}, and so" in done.stderr
    assert list(folder.iterdir()) == []

"""Kernels are compiled before they are called, by several processes, none of which is left over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dist_relu.kernels.ahead import calls_of
from dist_relu.kernels.ordered_sum import add
from dist_relu.runtime.compiling import compile_ahead
from tests.programs import TIMEOUT_S

TRAIN = """
import numpy as np, dist_relu as dr
data = dr.data.Dataset(np.zeros((64, 8), np.float32), np.zeros(64, np.int64))
with dr.start(1, backend="serial") as coordinator:
    coordinator.fit(dr.nn.Sequential(dr.nn.Dense(4)), data, dr.optim.SGD(lr=0.1), epochs=1, batch_size=32)
"""


def test_calls_are_listed_once_for_each_combination_of_types_and_not_made() -> None:
    total = {dtype: np.zeros(3, dtype) for dtype in ("float32", "float64")}
    calls = calls_of(lambda: [add(total[dtype], total[dtype] + 1) for dtype in ("float32", "float64", "float32")])
    assert [str(types[0].dtype) for _, types in calls] == ["float32", "float64"]
    assert not total["float32"].any()
    compile_ahead(calls)
    add(total["float32"], total["float32"] + 1)
    assert total["float32"].all()


def helpers_of(process: subprocess.Popen[str]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.mark.long
def test_helpers_end_when_the_process_that_started_them_is_killed(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    program = subprocess.Popen([sys.executable, "-c", TRAIN], env=environment, text=True)
    deadline = time.monotonic() + TIMEOUT_S
    while not (helpers := helpers_of(program)):
        assert program.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    program.send_signal(signal.SIGKILL)
    program.wait()
    while any(Path(f"/proc/{pid}").exists() for pid in helpers):
        assert time.monotonic() < deadline
        time.sleep(0.05)

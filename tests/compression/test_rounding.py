"""Gradients of 16 bits: half the bytes between nodes, and the same bits on any of them."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

import dist_relu as dr
from dist_relu.comm.halves import Halves, Rounding
from tests.cases import chaos
from tests.compression.rounded_training import WAYS, digests, model_of
from tests.compression.test_compressions import pid
from tests.programs import ROOT, mpirun_on_nodes, run


@pytest.fixture(scope="module")
def alone() -> list[str]:
    with dr.start(backend="serial") as coordinator:
        return digests(coordinator)


@pytest.mark.long
def test_workers_of_a_node_come_to_the_bits_of_one(alone: list[str]) -> None:
    with dr.start(3, backend="local") as coordinator:
        assert digests(coordinator) == alone


@pytest.mark.parametrize("placement", ["ab", *chaos("aab", "aabbcc")])
def test_so_do_several_nodes_and_half_the_bytes_are_sent(alone: list[str], tmp_path: Path, placement: str) -> None:
    program = [sys.executable, "-m", "tests.compression.rounded_training", str(tmp_path)]
    done = run(mpirun_on_nodes(placement, *program), cwd=ROOT)
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert found["nodes"] == len(set(placement))
    assert found["digests"] == alone
    as_they_are, rounded = found["bytes"]
    model = model_of("float32").build((64,))
    share = WAYS[0][0].bytes_sent(model) / (4 * model.num_params)
    assert share == pytest.approx(0.51, abs=0.005)  # since running means are not rounded
    assert rounded / as_they_are == pytest.approx(share, rel=0.01)


@pytest.mark.parametrize("to", ["bfloat16", "float16"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rounded_numbers_travel_as_they_are(rng: np.random.Generator, to: Rounding, dtype: str) -> None:
    words = rng.integers(0, 2**32, 10_000, dtype=np.uint32)
    with np.errstate(all="ignore"):
        x = np.concatenate([words.view(np.float32), np.geomspace(1e-9, 1e9, 1000), [0.0, -0.0, np.inf]]).astype(dtype)
    halves = Halves(to, len(x))
    halves.round(x)
    travelling, arrived = np.empty(len(x), np.uint16), np.empty_like(x)
    halves.pack(x, travelling)
    halves.unpack(travelling, arrived)
    np.testing.assert_array_equal(arrived.view(f"u{x.itemsize}"), x.view(f"u{x.itemsize}"))


@pytest.mark.long
@pytest.mark.parametrize("how", [how for how, dtype in WAYS if dtype == "float32"], ids=repr)
def test_a_run_survives_the_loss_of_a_worker(digits: dr.data.Split, how: dr.compression.Rounded) -> None:
    class Disturbance:
        def on_epoch_end(self, trainer: dr.Trainer, summary: dr.EpochSummary) -> None:
            if len(pids) == 3 and summary.epoch == 1:
                os.kill(pids[1], signal.SIGKILL)

    found = []
    for backend, workers in (("serial", 1), ("local", 3)):
        with dr.start(workers, backend=backend) as coordinator:
            pids, model = coordinator.run(pid, None), model_of("float32")
            coordinator.fit(
                model,
                digits.train,
                dr.optim.SGD(0.1, momentum=0.9),
                epochs=3,
                batch_size=96,
                shards=6,
                compression=how,
                callbacks=[Disturbance()],
            )
            assert workers == 1 or len(coordinator.recoveries) == 1
            found.append(model.sha256())
    assert found[0] == found[1]

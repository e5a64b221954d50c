"""Sums that are halved and doubled, for which three hosts are too few: eight and sixteen.  Needs root."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dist_relu.scaling.cost import traffic_of_training
from tests.hosts.network import hosts, network_of
from tests.programs import TRAIN, run

SHARDS = 16
NUM_PARAMS = 64 * 256 + 256 + 256 * 128 + 128 + 128 * 10 + 10
OPTIONS = ["--model", "mlp:256,128", "--shards", str(SHARDS), "--epochs", "1", "--seed", "1", "--quiet"]


@pytest.fixture(scope="module", autouse=True)
def many() -> Iterator[None]:
    """A network beside that of the other tests."""
    with network_of(16, "many"):
        yield


@pytest.mark.parametrize("number", [8, 16])
def test_many_hosts_end_with_the_bits_of_a_worker_alone(tmp_path: Path, number: int) -> None:
    assert traffic_of_training(4 * NUM_PARAMS, number, SHARDS).scheme == "halving"
    of_many, of_one = tmp_path / "many.json", tmp_path / "one.json"
    hosts("mpirun", "+".join("1" * number), *TRAIN, *OPTIONS, "--report", str(of_many))
    assert run([*TRAIN, *OPTIONS, "--backend", "serial", "--report", str(of_one)]).returncode == 0
    many, one = (json.loads(path.read_text()) for path in (of_many, of_one))
    assert (many["nodes"], one["nodes"]) == (number, 1)
    assert many["params_sha256"] == one["params_sha256"]

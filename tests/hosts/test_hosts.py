"""Real hosts, as far as a machine can have several: the test network of `cluster/hosts`.  Needs root."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.digests import TRAININGS
from tests.hosts.network import HOSTS, hosts, sent_bytes
from tests.programs import TRAIN, UNDER_MPI, marked_environment, processes_with, wait_for_line, wait_until

PLACEMENTS = ["2+1+1", "1+1+1"]
STEPS_PER_EPOCH = 23
NUM_PARAMS = 64 * 256 + 256 + 256 * 128 + 128 + 128 * 10 + 10


def trained(tmp_path: Path, placement: str, *options: str) -> dict[str, Any]:
    path = tmp_path / "report.json"
    hosts("mpirun", placement, *TRAIN, "--shards", "4", "--seed", "1", "--quiet", "--report", str(path), *options)
    report: dict[str, Any] = json.loads(path.read_text())
    return report


def test_every_host_has_a_name_and_an_address_of_its_own() -> None:
    assert [hosts("exec", name, "hostname").strip() for name in "abc"] == ["a", "b", "c"]
    assert sorted(hosts("mpirun", "2+1+1", "hostname").split()) == ["a", "a", "b", "c"]


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_several_hosts_end_with_the_bits_that_there_have_always_been(tmp_path: Path, placement: str) -> None:
    report = trained(tmp_path, placement, *TRAININGS[0].options())
    assert report["nodes"] == 3
    assert report["params_sha256"] == TRAININGS[0].digest


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_all_trainings_whose_digests_are_known_end_with_them(placement: str) -> None:
    said = hosts("mpirun", placement, *UNDER_MPI, "-k", "test_digests")
    assert f"{len(TRAININGS)} passed" in said


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_wire_carries_what_it_must_and_no_more(tmp_path: Path, placement: str) -> None:
    sent = []
    for epochs in ("1", "21"):
        before = sent_bytes()
        trained(tmp_path, placement, "--epochs", epochs)
        sent.append({name: after - before[name] for name, after in sent_bytes().items()})
    least = 2 * (3 - 1) / 3 * NUM_PARAMS * 4
    for name in "abc":
        per_step = (sent[1][name] - sent[0][name]) / (20 * STEPS_PER_EPOCH)
        assert 0.9 * least < per_step < 1.1 * least, f"host {name}: {per_step / least:.3f} of the optimum"


@pytest.mark.parametrize("victim", ["b", "a"])
def test_a_host_that_is_unplugged_is_named_within_15_seconds(victim: str) -> None:
    mark = uuid.uuid4().hex
    before = set(os.listdir("/dev/shm"))
    command = [HOSTS, "mpirun", "2+1+1", *TRAIN, "--shards", "4", "--epochs", "1000000"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=marked_environment(mark)
    )
    try:
        assert process.stdout is not None
        wait_for_line(process, "epoch 1/")
        unplugged = time.monotonic()
        hosts("link", victim, "down")
        _, errors = process.communicate(timeout=60)
        assert time.monotonic() - unplugged < 15
    finally:
        hosts("link", victim, "up")
        process.kill()
    assert process.returncode == 1
    assert f"Host {victim} (rank" in errors
    assert "has not been heard of for 10 s" in errors
    wait_until(lambda: not processes_with(mark))
    assert set(os.listdir("/dev/shm")) <= before


def test_a_killed_rank_is_named() -> None:
    mark = uuid.uuid4().hex
    command = [HOSTS, "mpirun", "1+2+1", *TRAIN, "--shards", "4", "--epochs", "1000000"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=marked_environment(mark)
    )
    assert process.stdout is not None
    wait_for_line(process, "epoch 1/")
    ranks = set(processes_with(mark)) & set(processes_with("PMI_RANK=2\0"))
    (victim,) = [pid for pid in ranks if Path(f"/proc/{pid}/cmdline").read_text().startswith(sys.executable)]
    os.kill(victim, signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert f"Worker 2 (host b, pid {victim}) was killed by signal 9; the job ends." in errors
    wait_until(lambda: not processes_with(mark))

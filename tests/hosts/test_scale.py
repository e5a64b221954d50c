"""`dist-relu scale` measures over several hosts, and what messages between them take.  Needs root."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.hosts.network import HOSTS, hosts

FEW = ["--model", "mlp:16", "--steps", "3", "--warm-up", "1", "--repetitions", "1"]


def measured(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "measurements.jsonl").read_text().splitlines()]


def test_steps_and_messages_are_measured_between_hosts(tmp_path: Path) -> None:
    hosts("scale", "1+1+1", "--workers", "1,3", *FEW, "--output", str(tmp_path))
    one, three = sorted(measured(tmp_path), key=lambda line: line["nodes"])
    assert (one["nodes"], one["messages"]) == (1, [])
    assert three["nodes"] == 3
    seconds = [seconds for size_bytes, seconds in three["messages"] if size_bytes == 4_000_000]
    assert min(seconds) > 0.9 * 4e6 / 125e6  # of 1 Gbit/s
    assert one["sha256"] == three["sha256"]


def test_the_same_workers_run_on_so_many_nodes_of_the_hosts(tmp_path: Path) -> None:
    told = hosts("scale", "2+1+2", "--workers", "1,2,4", "--nodes", "1,2", *FEW, "--output", str(tmp_path))
    lines = measured(tmp_path)
    assert sorted((line["point"]["workers"], line["nodes"]) for line in lines) == [(1, 1), (2, 1), (2, 2), (4, 2)]
    assert all(line["nodes"] == line["point"]["nodes"] for line in lines)
    assert len({line["sha256"] for line in lines}) == 1
    assert "Left out: 4 workers on 1 node, for which too few have room." in told


def test_a_machine_that_is_named_twice_is_not_taken_for_two_nodes(tmp_path: Path) -> None:
    options = ["--host", "a:1,a:1", "--workers", "2", "--nodes", "2", *FEW, "--output", str(tmp_path)]
    done = subprocess.run([HOSTS, "scale", "1+1", *options], capture_output=True, text=True, check=False)
    assert "Some of --nodes 2 are the same machine: only 1 took part. Each counts once." in done.stderr
    assert done.returncode == 1

"""`dist-relu scale` measures over several hosts, and what messages between them take.  Needs root."""

from __future__ import annotations

import json
from pathlib import Path

from tests.hosts.network import hosts


def test_steps_and_messages_are_measured_between_hosts(tmp_path: Path) -> None:
    few = ["--model", "mlp:16", "--steps", "3", "--warm-up", "1", "--repetitions", "1", "--output", str(tmp_path)]
    hosts("scale", "1+1+1", "--workers", "1,3", *few)
    lines = [json.loads(line) for line in (tmp_path / "measurements.jsonl").read_text().splitlines()]
    one, three = sorted(lines, key=lambda line: line["nodes"])
    assert (one["nodes"], one["messages"]) == (1, [])
    assert three["nodes"] == 3
    seconds = [seconds for size_bytes, seconds in three["messages"] if size_bytes == 4_000_000]
    assert min(seconds) > 0.9 * 4e6 / 125e6  # of 1 Gbit/s
    assert one["sha256"] == three["sha256"]

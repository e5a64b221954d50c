"""Traces of several hosts.  Needs root."""

from __future__ import annotations

import json
from pathlib import Path

from tests.hosts.network import hosts
from tests.programs import TRAIN


def test_hosts_of_one_machine_find_that_they_have_one_clock(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    hosts("mpirun", "2+1+1", *TRAIN, "--shards", "4", "--quiet", "--trace", str(path), "--trace-steps", "60")
    content = json.loads(path.read_text())
    phases = content["dist_relu"]["phases"]
    assert [worker["host"] for worker in phases["workers"]] == ["a", "a", "b", "c"]
    assert phases["num_comparisons"] >= 2
    assert 0 < phases["clock_error"] < 0.1
    assert 0 <= phases["hidden"] <= 1
    begins = {event["id"]: event["ts"] for event in content["traceEvents"] if event["ph"] == "b"}
    ends = {event["id"]: event["ts"] for event in content["traceEvents"] if event["ph"] == "e"}
    assert begins.keys() == ends.keys()
    assert all(begins[message] <= ends[message] for message in begins)

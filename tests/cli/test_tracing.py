"""`dist-relu train --trace`: says where the time has gone, and writes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.test_cli import train


def test_a_traced_run_says_where_its_time_went_and_writes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trace.json"
    code, said, _ = train(capsys, "--epochs", "2", "--model", "mlp:16", "--trace", str(path), "--trace-steps", "30")
    assert code == 0
    assert "Steps 20 to 29 took" in said
    content = json.loads(path.read_text())
    assert sum(event.get("cat") == "step" for event in content["traceEvents"]) == 30


def test_a_number_of_steps_to_trace_goes_with_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, errors = train(capsys, "--trace-steps", "30")
    assert code == 2
    assert "--trace-steps goes with --trace: nothing is traced without." in errors

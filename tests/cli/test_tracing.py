"""`dist-relu train --trace`: says where the time has gone, and writes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.test_cli import call, train


def test_a_traced_run_says_where_its_time_went_and_writes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trace.json"
    code, said, _ = train(capsys, "--epochs", "2", "--model", "mlp:16", "--trace", str(path), "--trace-steps", "30")
    assert code == 0
    assert "Steps 20 to 29 took" in said
    content = json.loads(path.read_text())
    assert sum(event.get("cat") == "step" for event in content["traceEvents"]) == 30


def test_a_trace_becomes_a_picture_and_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace, picture = tmp_path / "trace.json", tmp_path / "a.svg"
    assert train(capsys, "--epochs", "2", "--model", "mlp:16", "--trace", str(trace), "--quiet")[0] == 0
    code, said, _ = call(capsys, "plot", "phases", str(trace), "--output", str(picture))
    assert code == 0
    assert "Steps 20 to 45 took" in said
    assert "<!-- worker 0 -->" in picture.read_text()


@pytest.mark.parametrize("content", ["{}", '{"dist_relu": {"phases": {"workers": []}}}', '{"traceEvents": []}'])
def test_what_is_no_trace_of_ours_is_no_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    path = tmp_path / "trace.json"
    path.write_text(content)
    code, _, errors = call(capsys, "plot", "phases", str(path), "--output", str(tmp_path / "a.png"))
    assert code == 2
    assert f"{path}: expected a file that `dist-relu train --trace FILE` wrote." in errors


def test_a_number_of_steps_to_trace_goes_with_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, errors = train(capsys, "--trace-steps", "30")
    assert code == 2
    assert "--trace-steps goes with --trace: nothing is traced without." in errors

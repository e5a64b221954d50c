"""Completion in a shell, by the script that `dist-relu completion` prints."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from tests.cli.test_cli import call
from tests.programs import TIMEOUT_S


@pytest.fixture
def script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    code, output, _ = call(capsys, "completion", "bash")
    assert code == 0
    (tmp_path / "completion.sh").write_text(output)
    (tmp_path / "samples.npz").touch()
    return tmp_path / "completion.sh"


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("tra", {"train"}),
        ("analyze gra", {"gradients"}),
        ("train --mom", {"--momentum"}),
        ("train --optimizer ada", {"adam", "adamw"}),
        ("train --data m", {"mnist"}),
        ("train --data sam", {"samples.npz"}),
        ("train --model res", {"resnet:8", "resnet:20"}),
        ("analyze training --activation ta", {"tanh"}),
        ("evaluate sam", {"samples.npz"}),
        ("train --epochs ", set()),
    ],
)
def test_commands_options_names_and_files_are_completed(script: Path, line: str, offered: set[str]) -> None:
    words = ["dist-relu", *line.split(" ")]
    program = (
        f"source {script}; COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; _dist_relu; "
        "printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(
        ["bash", "-c", program], cwd=script.parent, capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    )
    assert set(done.stdout.split()) == offered
    assert done.stderr == ""

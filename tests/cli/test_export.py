"""`dist-relu export`, `import` and `verify`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn
from tests.cli.test_cli import call


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    dr.save_model(nn.mlp([8], 3).build((4,)).initialize(1), path)
    return path


def test_a_model_goes_to_onnx_and_back(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, output, _ = call(capsys, "export", str(saved), "--to", str(tmp_path / "a.onnx"))
    assert (code, "differ by" in output) == (0, True)
    assert call(capsys, "verify", str(tmp_path / "a.onnx"))[0] == 0
    code, *_ = call(capsys, "import", str(tmp_path / "a.onnx"), "--save", str(tmp_path / "back.safetensors"))
    assert code == 0
    assert (tmp_path / "back.safetensors").read_bytes() == saved.read_bytes()


def test_a_model_becomes_a_python_module(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, *_ = call(capsys, "export", str(saved), "--to", str(tmp_path / "a.py"))
    assert code == 0
    module: dict[str, Any] = {}
    exec((tmp_path / "a.py").read_text(), module)
    x = np.ones((2, 4), np.float32)
    np.testing.assert_allclose(module["forward"](x), dr.load_model(saved).forward(x), rtol=1e-6)


def test_a_file_that_is_not_as_certified_ends_the_command(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(capsys, "export", str(saved), "--to", str(tmp_path / "a.onnx"))
    content = json.loads((tmp_path / "a.json").read_text())
    content["outputs"][0][0] += 1
    (tmp_path / "a.json").write_text(json.dumps(content))
    code, _, errors = call(capsys, "verify", str(tmp_path / "a.onnx"))
    assert code != 0
    assert "gives other outputs than its certificate has" in errors


def test_a_name_that_ends_in_something_else_is_refused(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, errors = call(capsys, "export", str(saved), "--to", str(tmp_path / "a.pt"))
    assert code == 2
    assert "expected a name that ends in .onnx or .py" in errors

"""`dist-relu export`, `import` and `verify`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import dist_relu as dr
from dist_relu import nn
from tests.cli.test_cli import call
from tests.twin import Array


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


def test_a_graph_in_place_of_a_saved_model_is_told_how_to_become_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.onnx").touch()
    code, _, errors = call(capsys, "evaluate", str(tmp_path / "a.onnx"))
    assert code == 2
    assert "Make one of it: dist-relu import" in " ".join(errors.split())


def weights_of_torch(folder: Path, names: tuple[str, str]) -> dict[str, Array]:
    """As a state dict of two linear layers, for digits."""
    rng = np.random.default_rng(1)
    weights = {
        f"{name}.{kind}": rng.standard_normal(shape, np.float32)
        for name, sizes in zip(names, [(16, 64), (10, 16)], strict=True)
        for kind, shape in (("weight", sizes), ("bias", sizes[:1]))
    }
    save_file(weights, folder / "weights.safetensors")
    return weights


def test_weights_of_torch_become_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = weights_of_torch(tmp_path, ("a", "b"))
    (tmp_path / "map.json").write_text('{"0": "a"}')
    asked = ["import", str(tmp_path / "weights.safetensors"), "--save", str(tmp_path / "m.safetensors")]
    code, *_ = call(capsys, *asked, "--model", "mlp:16", "--mapping", str(tmp_path / "map.json"))
    assert code == 0
    model = dr.load_model(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(model.params[0].value, weights["a.weight"].T)
    code, _, errors = call(capsys, *asked, "--model", "mlp:8")
    assert code == 2
    assert "has 0 layers with bias (8,), weight (8, 64)" in errors


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("weights.safetensors", (), "weights of PyTorch need --model"),
        ("a.onnx", ("--model", "cnn"), "--model and --mapping are for PyTorch's weights"),
        ("weights.safetensors", ("--model", "mlp:16", "--output", "y"), "--output is for ONNX"),
    ],
)
def test_options_of_the_other_kind_of_file_are_refused(
    name: str, options: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).touch()
    code, _, errors = call(capsys, "import", str(tmp_path / name), "--save", str(tmp_path / "m"), *options)
    assert code == 2
    assert message in errors

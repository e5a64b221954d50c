"""`dist-relu plot`: every picture is drawn from what another command wrote."""

from __future__ import annotations

import builtins
import inspect
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn
from dist_relu.analysis.examples import fit_curve
from tests.test_cli import call, train

PNG = b"\x89PNG\r\n\x1a\n"


def texts(path: Path) -> str:
    """What an SVG file was made of, with glyphs as the comments that name them."""
    ElementTree.parse(path)
    return path.read_text()


@pytest.fixture
def logs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    folder = tmp_path / "first"
    assert train(capsys, "--epochs", "2", "--quiet", "--log-dir", str(folder), "--watch-every", "1")[0] == 0
    return folder


def test_gradients_of_several_activations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, png, svg = (str(tmp_path / name) for name in ("gradients.json", "a.png", "a.svg"))
    options = "--depth", "5", "--activation", "relu", "--activation", "tanh", "--json", source, "--backend", "serial"
    assert call(capsys, "analyze", "gradients", *options)[0] == 0
    assert call(capsys, "plot", "gradients", source, "--output", png, "--output", svg) == (0, "", "")
    assert Path(png).read_bytes().startswith(PNG)
    for text in ("norm of the gradient", "at weights", "relu", "tanh"):
        assert f"<!-- {text} -->" in texts(Path(svg))


def test_gradients_through_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, png, svg = (str(tmp_path / name) for name in ("recurrence.json", "a.png", "a.svg"))
    options = "--model", "rnn:8", "--init", "identity", "--init", "he-normal", "--json", source, "--backend", "serial"
    assert call(capsys, "analyze", "recurrence", *options)[0] == 0
    assert call(capsys, "plot", "recurrence", source, "--output", png, "--output", svg) == (0, "", "")
    assert Path(png).read_bytes().startswith(PNG)
    for text in ("norm of the gradient at the state", "identity", "he-normal"):
        assert f"<!-- {text} -->" in texts(Path(svg))


def test_activations_of_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, source, svg = (str(tmp_path / name) for name in ("model.safetensors", "activations.json", "a.svg"))
    dr.save_model(nn.mlp([20, 10], 10).build((64,)).initialize(), model)
    assert call(capsys, "analyze", "activations", model, "--json", source, "--backend", "serial")[0] == 0
    assert call(capsys, "plot", "activations", source, "--output", svg) == (0, "", "")
    for text in ("dead units", "share in %", "3 ReLU"):
        assert f"<!-- {text} -->" in texts(Path(svg))


def test_activations_over_the_steps_of_a_run(tmp_path: Path, logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for source in (logs, logs / "steps.jsonl"):
        assert call(capsys, "plot", "activations", str(source), "--output", str(tmp_path / "a.svg")) == (0, "", "")
        for text in ("step", "units that are 0 for a whole batch", "1 ReLU"):
            assert f"<!-- {text} -->" in texts(tmp_path / "a.svg")


def test_curves_of_several_runs(tmp_path: Path, logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "second"
    assert train(capsys, "--epochs", "1", "--quiet", "--log-dir", str(other))[0] == 0
    assert call(capsys, "plot", "curves", str(logs), str(other), "--output", str(tmp_path / "c.svg")) == (0, "", "")
    for text in ("mean loss of a batch", "accuracy", "first", "second"):
        assert f"<!-- {text} -->" in texts(tmp_path / "c.svg")


def test_training_of_several_activations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, png, svg = (str(tmp_path / name) for name in ("training.json", "a.png", "a.svg"))
    options = "--activation", "relu", "--activation", "gelu", "--epochs", "1", "--seeds", "2", "--model", "mlp:20"
    assert call(capsys, "analyze", "training", *options, "--json", source, "--backend", "serial")[0] == 0
    assert call(capsys, "plot", "training", source, "--output", png, "--output", svg) == (0, "", "")
    assert Path(png).read_bytes().startswith(PNG)
    for text in ("mean loss of a batch", "gradient of all parameters", "zeros in hidden layers", "relu", "gelu"):
        assert f"<!-- {text} -->" in texts(Path(svg))


def test_training_that_diverged_is_told_in_the_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    course = {"steps": [0, 10], "loss": [2.0, 1.0], "gradient_norm": [1.0, 0.5], "sparsity": [0.5, 0.6]}
    fine, lost = {"test_loss": 1.0, "test_accuracy": 0.5}, {"test_loss": None, "test_accuracy": None}
    runs = [
        {"activation": "relu", "seed": 0, **course, **fine},
        {"activation": "relu", "seed": 1, **course, **lost},
        {"activation": "tanh", "seed": 0, **{key: [] for key in course}, **lost},
    ]
    source, svg = tmp_path / "training.json", tmp_path / "a.svg"
    source.write_text(json.dumps({"runs": runs}))
    assert call(capsys, "plot", "training", str(source), "--output", str(svg)) == (0, "", "")
    assert "<!-- relu (1 of 2 diverged) -->" in texts(svg)
    assert "<!-- tanh (1 of 1 diverged) -->" in texts(svg)


def test_relu_beside_linear_layers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    svg = tmp_path / "relu.svg"
    assert call(capsys, "plot", "relu", "--output", str(svg)) == (0, "", "")
    for text in ("linear layers", "with ReLU between them", "mean squared error"):
        assert f"<!-- {text} -->" in texts(svg)


def test_linear_layers_fit_a_line_and_relu_fits_the_curve() -> None:
    with dr.start(backend="serial") as coordinator:
        fit = fit_curve(coordinator)
    line, curve = fit.outputs.values()
    assert np.abs(np.diff(line, 2)).max() < 1e-5
    truth = np.sin(3 * fit.grid) + fit.grid / 3
    assert np.square(line - truth).mean() > 0.3
    assert np.square(curve - truth).mean() < 0.01


def test_the_gallery_has_every_function_of_one_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    svg = tmp_path / "family.svg"
    assert call(capsys, "plot", "family", "--output", str(svg)) == (0, "", "")
    functions = {
        name
        for name, function in vars(dr.activations).items()
        if inspect.isfunction(function) and "x" in inspect.signature(function).parameters and name[0] != "_"
    }
    of_rows = {"crelu", "softmax", "log_softmax", "glu", "reglu", "swiglu"}
    assert of_rows < functions
    for name in functions - of_rows - {"derivative", "value_and_derivative"}:
        assert f"<!-- {name} -->" in texts(svg)


def test_the_same_picture_is_the_same_file(tmp_path: Path, logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / name for name in ("a.svg", "b.svg", "a.png", "b.png")]
    for path in paths:
        assert call(capsys, "plot", "curves", str(logs), "--output", str(path))[0] == 0
    contents = [path.read_bytes() for path in paths]
    assert contents[0] == contents[1]
    assert contents[2] == contents[3]


def test_what_cannot_be_drawn_is_told_in_a_line(
    tmp_path: Path, logs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = tmp_path / "wrong.json"
    for content in ("", "[]", '{"runs": 3}', '{"runs": []}', '{"runs": [{"loss": 1}]}', '{"layers": [{"name": 1}]}'):
        wrong.write_text(content)
        for command in ("gradients", "recurrence", "activations", "training"):
            code, _, errors = call(capsys, "plot", command, str(wrong), "--output", str(tmp_path / "a.png"))
            assert code == 2
            assert f"expected a file that `dist-relu analyze {command} --json` wrote." in errors
    code, _, errors = call(capsys, "plot", "curves", str(wrong), "--output", str(tmp_path / "a.png"))
    assert code == 2
    assert "is no log of a run" in errors
    code, _, errors = call(capsys, "plot", "curves", str(logs), "--output", str(tmp_path / "a.pdf"))
    assert code == 2
    assert "expected a name that ends in .png or .svg" in errors
    monkeypatch.setattr("dist_relu.plot.find_spec", lambda _: None)
    code, _, errors = call(capsys, "plot", "curves", str(logs))
    assert code == 2
    assert "pip install 'dist_relu[plot]'" in errors


def test_nothing_else_needs_matplotlib(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    plain = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        assert not name.startswith("matplotlib")
        return plain(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    assert call(capsys, "analyze", "gradients", "--model", "mlp:5", "--samples", "5", "--backend", "serial")[0] == 0

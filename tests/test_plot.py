"""`dist-relu plot`: every picture is drawn from what another command wrote."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import dist_relu as dr
from dist_relu import nn
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
    for content in ("", "[]", '{"runs": 3}', '{"layers": [{"name": 1}]}'):
        wrong.write_text(content)
        for command in ("gradients", "activations"):
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

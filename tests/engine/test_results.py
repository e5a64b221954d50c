"""What one result costs the others, when it can't be written: nothing."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn
from dist_relu.checkpoint import check_can_be_saved
from tests.cli.test_cli import call, train
from tests.programs import TIMEOUT_S, TRAIN
from tests.twin import Array


def test_a_save_that_fails_costs_neither_report_nor_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"
    options = "--epochs", "1", "--save", "/dev/full", "--report", str(report), "--log-dir", str(tmp_path / "logs")
    code, output, errors = train(capsys, *options)
    assert code == 1
    assert "Test accuracy" in output
    assert "/dev/full can't be written: No space left on device." in errors
    assert errors.splitlines()[-1].endswith("Not written, or not whole: /dev/full.")
    assert json.loads(report.read_text())["epochs"] == 1
    assert dr.load_model(tmp_path / "logs" / "model.safetensors").num_params > 0


@pytest.mark.long
def test_output_that_has_no_room_costs_no_model(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with open("/dev/full", "wb") as full:
        command = [*TRAIN, "--backend", "serial", "--epochs", "1", "--save", str(path)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "Warning: Standard output can't be written: No space left on device.",
        "dist-relu: error: Not written, or not whole: standard output.",
    ]
    assert dr.load_model(path).num_params > 0


def test_an_answer_is_told_before_it_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "model.safetensors")
    assert train(capsys, "--epochs", "1", "--quiet", "--save", path)[0] == 0
    code, output, errors = call(capsys, "evaluate", path, "--backend", "serial", "--json", "/dev/full")
    assert code == 1
    assert "Test accuracy" in output
    assert "/dev/full can't be written: No space left on device." in errors


@pytest.mark.long
def test_a_picture_that_fails_costs_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full, path = tmp_path / "full.png", tmp_path / "a.png"
    full.symlink_to("/dev/full")
    code, output, errors = call(capsys, "plot", "relu", "--output", str(full), "--output", str(path))
    assert (code, output) == (1, f"Wrote {path}.\n")
    assert f"{full} can't be written: No space left on device." in errors
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_report_that_fails_costs_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.safetensors"
    code, output, errors = train(capsys, "--epochs", "1", "--save", str(path), "--report", "/dev/full")
    assert code == 1
    assert "Test accuracy" in output
    assert "Not written, or not whole: /dev/full." in errors
    assert dr.load_model(path).num_params > 0


def test_a_policy_that_can_not_be_saved_is_exported_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export = tmp_path / "policy.py"
    options = "--steps", "64", "--horizon", "4", "--save", "/dev/full", "--export", str(export)
    code, output, errors = call(capsys, "rl", "--backend", "serial", *options)
    assert code == 1
    assert "Mean return" in output
    assert "Not written, or not whole: /dev/full." in errors
    assert "def act(state)" in export.read_text()


@dataclass(eq=False)
class Odd(nn.Layer):
    """A layer with an argument of any kind."""

    argument: Any = None
    _n: int = field(init=False, default=0)

    def build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return input_shape

    def params(self) -> list[nn.Param]:
        return []

    def forward(self, x: Array, run: nn.Pass = nn.PLAIN) -> Array:
        return x

    def backward(self, dy: Array, run: nn.Pass = nn.PLAIN, *, wants_dx: bool = True) -> Array:
        return dy


@pytest.mark.parametrize(
    "argument", [np.tanh, lambda x: x, np.zeros(3), {1: 2}, {1, 2}, b"x", 1j, int, [3, [object()]], {"a": np.tanh}]
)
def test_what_no_file_can_hold_is_refused_by_layer_and_field(tmp_path: Path, argument: Any) -> None:
    model = nn.Sequential(nn.Dense(2), Odd(argument)).build((3,)).initialize()
    with pytest.raises(ValueError, match=r"^Layer 1 \(Odd\) can't be saved: argument"):
        dr.save_model(model, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "argument", [None, True, 3, 2.5, "text", (1, (2,)), [1, "a"], {"a": [1]}, np.float64(2.5), nn.HeNormal()]
)
def test_what_a_file_can_hold_comes_back(tmp_path: Path, argument: Any) -> None:
    model = nn.Sequential(nn.Dense(2), Odd(argument)).build((3,)).initialize()
    dr.save_model(model, tmp_path / "model")
    first = (tmp_path / "model").read_bytes()
    loaded = dr.load_model(tmp_path / "model", classes=[Odd])
    assert loaded.sha256() == model.sha256()
    dr.save_model(loaded, tmp_path / "model")
    assert (tmp_path / "model").read_bytes() == first


def test_layers_that_do_not_come_back_are_refused() -> None:
    other: Any = dataclass(eq=False)(type("Odd", (Odd,), {"__module__": __name__}))
    with pytest.raises(ValueError, match=r"^Layer 0 \(Odd\) can't be saved: it can't be made again"):
        check_can_be_saved(nn.Sequential(Odd(3), other(3), nn.Dense(2)))


def test_a_model_that_can_not_be_saved_is_not_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "own.py"
    path.write_text(
        "from tests.engine.test_results import Odd\nfrom dist_relu import nn\n"
        "def net(): return nn.Sequential(nn.Dense(8), Odd(len), nn.Dense(10))\n"
    )
    options = "--model", f"{path}:net", "--epochs", "1", "--save", str(tmp_path / "model")
    code, output, errors = train(capsys, *options)
    assert code == 2
    assert "Layer 1 (Odd) can't be saved: argument=<built-in function len>" in errors
    assert "epoch" not in output

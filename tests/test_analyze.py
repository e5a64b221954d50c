"""`dist-relu analyze`, as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import analysis, nn
from dist_relu.options import ACTIVATIONS, INITIALIZERS
from tests.test_cli import call


def gradients(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str, str]:
    return call(capsys, "analyze", "gradients", "--backend", "serial", *options)


def test_gradients_are_shown_from_the_loss_back_to_the_input(capsys: pytest.CaptureFixture[str]) -> None:
    code, output, errors = gradients(capsys, "--model", "mlp:20,10")
    assert (code, errors) == (0, "")
    stages = [line.split("│")[1].strip() for line in output.splitlines() if line.startswith("│")]
    assert stages == ["4 Dense", "3 ReLU", "2 Dense", "1 ReLU", "0 Dense", "input"]


def test_gradients_of_several_activations_stand_in_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gradients.json"
    options = "--model", "mlp:30", "--depth", "8", "--init", "glorot-normal", "--samples", "500", "--json", str(path)
    assert gradients(capsys, *options, "--activation", "relu", "--activation", "sigmoid")[0] == 0
    content = json.loads(path.read_text())
    assert content["samples"] == 500
    relu, sigmoid = content["runs"]
    assert (relu["activation"], sigmoid["activation"]) == ("relu", "sigmoid")
    assert list(sigmoid["outputs"])[:3] == ["input", "0 Dense", "1 Sigmoid"]
    assert len(relu["outputs"]) == 2 * 8 + 2
    assert sigmoid["outputs"]["input"]["norm"] < relu["outputs"]["input"]["norm"] / 100  # they vanish


def test_numbers_of_the_command_are_those_of_the_library(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, data = tmp_path / "gradients.json", dr.data.load("digits").train
    assert gradients(capsys, "--model", "mlp:20", "--samples", "300", "--seed", "4", "--json", str(path))[0] == 0
    model = nn.mlp([20], 10).build((64,)).initialize(4)
    with dr.start(backend="serial") as coordinator:
        flow = analysis.gradient_flow(coordinator, model, (data.x[:300], data.y[:300]))
    (run,) = json.loads(path.read_text())["runs"]
    assert run["loss"] == flow.loss
    assert run["outputs"]["input"]["variance"] == flow.outputs["input"].variance
    assert run["weights"].keys() == flow.weights.keys()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_can_be_analysed(capsys: pytest.CaptureFixture[str], activation: str) -> None:
    assert gradients(capsys, "--model", "mlp:8", "--activation", activation, "--samples", "50")[0] == 0


@pytest.mark.parametrize("init", INITIALIZERS)
def test_every_initialiser_can_be_analysed(capsys: pytest.CaptureFixture[str], init: str) -> None:
    options = "--model", "resnet:8", "--init", init, "--activation", "elu", "--samples", "20"
    code, output, _ = gradients(capsys, *options)
    assert code == 0
    assert "Residual" in output


def test_depth_is_for_models_of_one_width(capsys: pytest.CaptureFixture[str]) -> None:
    for model in ("mlp:20,30", "cnn"):
        code, _, errors = gradients(capsys, "--model", model, "--depth", "3")
        assert code == 2
        assert f"--depth 3 is for a model mlp:UNITS, of which it makes so many layers, not for {model}." in errors


def test_activations_of_a_saved_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.mlp([20, 10], 10).build((64,)).initialize()
    assert model.values is not None
    model.views(model.values)[1][[2, 5]] = -1000
    dr.save_model(model, tmp_path / "model.safetensors")
    path = tmp_path / "activations.json"
    options = "--backend", "serial", "--samples", "400", "--json", str(path)
    code, output, errors = call(capsys, "analyze", "activations", str(tmp_path / "model.safetensors"), *options)
    assert (code, errors) == (0, "")
    assert "Activations of model.safetensors for 400 samples" in output
    content = json.loads(path.read_text())
    assert {2, 5} <= set(content["layers"][1]["dead"])
    hidden = np.maximum(dr.data.load("digits").train.x[:400] @ model.params[0].value + model.params[1].value, 0)
    assert content["layers"][1]["sparsity"] == pytest.approx((hidden == 0).mean(), abs=1e-4)


def test_a_model_for_other_samples_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dr.save_model(nn.mlp([20], 10).build((9,)).initialize(), tmp_path / "model.safetensors")
    code, _, errors = call(capsys, "analyze", "activations", str(tmp_path / "model.safetensors"))
    assert code == 2
    assert "built for samples of shape (9,)" in errors

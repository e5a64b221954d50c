"""The command line and data that are not as it expects: what is said, what is kept, what is scaled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn
from tests.cli.test_cli import call, train
from tests.twin import Array


def saved(tmp_path: Path, **arrays: Array) -> str:
    np.savez(tmp_path / "data.npz", **arrays)  # type: ignore[arg-type]
    return str(tmp_path / "data.npz")


@pytest.fixture
def x(rng: np.random.Generator) -> Array:
    return rng.standard_normal((60, 3))


@pytest.mark.parametrize("outputs", [1, 2])
def test_of_real_targets_the_numbers_are_predicted(
    outputs: int, tmp_path: Path, x: Array, capsys: pytest.CaptureFixture[str]
) -> None:
    data, model = saved(tmp_path, x=x, y=x[:, :outputs] * 2), str(tmp_path / "m.safetensors")
    assert train(capsys, "--data", data, "--model", "mlp:8", "--epochs", "1", "--save", model)[0] == 0
    code, output, _ = call(capsys, "predict", model, data, "--backend", "serial")
    assert code == 0
    with dr.start(backend="serial") as coordinator:
        expected = coordinator.forward(dr.load_model(model), x)
    assert [list(map(np.float32, line.split())) for line in output.splitlines()] == expected.tolist()


def test_files_say_what_a_model_predicts(tmp_path: Path, x: Array) -> None:
    path = tmp_path / "m.safetensors"
    for y, predicts in ((np.arange(60) % 2, "classes"), (x[:, :2], "numbers")):
        model = nn.Sequential(nn.Dense(2))
        with dr.start(backend="serial") as coordinator:
            result = coordinator.fit(model, (x, y), dr.optim.SGD(), epochs=1, batch_size=60, ema_decay=0.5)
        for each in filter(None, (model, result.average)):
            dr.save_model(each, path)
            assert dr.load_model(path).predicts == predicts
    dr.save_model(nn.Sequential(nn.Dense(2)).build((3,)).initialize(), path)
    assert dr.load_model(path).predicts is None


def test_of_policies_the_numbers_are_predicted(tmp_path: Path, x: Array, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "policy.safetensors")
    dr.save_model(nn.policy(3, 2).initialize(), path)
    _, output, _ = call(capsys, "predict", path, saved(tmp_path, x=x), "--backend", "serial")
    assert {len(line.split()) for line in output.splitlines()} == {3}


MODELS = """
from dist_relu import nn

def ready():
    model = nn.Sequential(nn.Dense(2), dtype="float64").build((3,)).initialize(0)
    model.values[:] = 0.5
    return model

def new():
    return nn.Sequential(nn.Dense(2), dtype="float64")

def looks_up():
    return nn.Sequential(nn.Reshape((3,)), nn.Embedding(9, 2), nn.Flatten(), nn.Dense(2))
"""


@pytest.fixture
def models(tmp_path: Path) -> str:
    (tmp_path / "models_of_mine.py").write_text(MODELS)
    return str(tmp_path / "models_of_mine.py")


def test_models_from_files_keep_their_parameters_and_dtype(
    tmp_path: Path, models: str, x: Array, capsys: pytest.CaptureFixture[str]
) -> None:
    data, path = saved(tmp_path, x=x, y=np.arange(60) % 2), str(tmp_path / "m.safetensors")
    common = ["--data", data, "--epochs", "1", "--lr", "1e-12", "--save", path]
    assert train(capsys, *common, "--model", f"{models}:ready")[0] == 0
    model = dr.load_model(path)
    assert model.dtype == np.float64
    np.testing.assert_allclose(model.values, 0.5, rtol=1e-6)
    assert train(capsys, *common, "--model", f"{models}:new")[0] == 0
    assert dr.load_model(path).dtype == np.float64
    code, _, errors = train(capsys, *common, "--model", f"{models}:ready", "--dtype", "float32")
    assert code == 2
    assert "the model is of float64, not of float32. Pass --dtype float64, or leave it out" in errors
    code, _, errors = call(capsys, "analyze", "gradients", "--data", data, "--model", f"{models}:ready")
    assert code == 2
    assert "returned a model with parameters, but here they are drawn" in errors


def test_a_normalised_model_scales_whatever_it_is_given(
    tmp_path: Path, x: Array, capsys: pytest.CaptureFixture[str]
) -> None:
    y, path = (x[:, 0] > 0).astype(int), str(tmp_path / "m.safetensors")
    data = saved(tmp_path, x=x * [1e-3, 1e3, 0] + [5, 1e4, 0.1], y=y)
    common = ["--data", data, "--model", "mlp:8", "--epochs", "20", "--batch-size", "8", "--save", path]
    assert train(capsys, *common, "--normalize", "standard")[0] == 0
    _, output, _ = call(capsys, "predict", path, data, "--backend", "serial")
    assert (np.array(output.split(), int) == y).mean() > 0.9
    _, output, _ = call(capsys, "evaluate", path, "--data", data, "--backend", "serial")
    assert float(output.split("%")[0].split()[-1]) > 80


def test_symbols_have_no_scale(tmp_path: Path, models: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = saved(tmp_path, x=np.arange(60).reshape(20, 3) % 9, y=np.arange(20) % 2)
    options = ["--data", data, "--model", f"{models}:looks_up", "--epochs", "1", "--batch-size", "8"]
    assert train(capsys, *options)[0] == 0
    code, _, errors = train(capsys, *options, "--normalize", "standard")
    assert code == 2
    assert "--normalize standard: the model looks samples up as symbols" in errors


@pytest.mark.parametrize("model", ["cnn", "resnet:8"])
def test_images_with_their_channels_first_are_known(
    model: str, tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    data = saved(tmp_path, x=rng.random((20, 3, 16, 16)), y=np.arange(20) % 2)
    code, _, errors = train(capsys, "--data", data, "--model", model)
    assert code == 2
    assert (
        "images are NHWC, (N, height, width, channels); yours, (16, 3, 16, 16), look like NCHW: nn.FromNCHW" in errors
    )

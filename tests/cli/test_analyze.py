"""`dist-relu analyze`, as a user meets it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import analysis, nn, optim
from dist_relu.cli.parsing import ACTIVATIONS, INITIALIZERS
from tests.cli.test_cli import call


def gradients(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str, str]:
    return call(capsys, "analyze", "gradients", "--backend", "serial", *options)


def test_gradients_are_shown_from_the_loss_back_to_the_input(capsys: pytest.CaptureFixture[str]) -> None:
    code, output, errors = gradients(capsys, "--model", "mlp:20,10")
    assert (code, errors) == (0, "")
    stages = [line.split("  ")[0].strip() for line in output.splitlines()[2:]]
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


def test_recurrences_are_shown_from_the_last_step_back_to_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recurrence.json"
    inits = "identity", "identity:0.5", "he-normal"
    options = [option for init in inits for option in ("--init", init)]
    options += ["--data", "digits", "--model", "rnn:20,pixels", "--samples", "300", "--dtype", "float64", "--seed", "4"]
    code, output, errors = call(capsys, "analyze", "recurrence", "--backend", "serial", *options, "--json", str(path))
    assert (code, errors) == (0, "")
    steps = [int(line.split()[0]) for line in output.splitlines() if line[:1].isdigit()]
    assert steps == [64, 57, 50, 43, 36, 29, 22, 15, 8, 1]
    runs = json.loads(path.read_text())["runs"]
    assert [run["init"] for run in runs] == list(inits)
    data = dr.data.load("digits").train
    for run, init in zip(runs, (nn.Identity(), nn.Identity(0.5), nn.HeNormal()), strict=True):
        layers = nn.Reshape((64, 1)), nn.RNN(20, recurrent_init=init), nn.Dense(10)
        model = nn.Sequential(*layers, dtype="float64").build((64,)).initialize(seed=4)
        with dr.start(backend="serial") as coordinator:
            (flow,) = analysis.gradient_through_time(coordinator, model, (data.x[:300], data.y[:300]))
        assert (run["name"], run["norms"]) == (flow.name, flow.norms)


def test_what_is_no_recurrence_or_no_initialiser_is_told_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    for options, message in (
        (("--model", "mlp:5"), "in RNN layers, and the model has none"),
        (("--init", "zero"), "--init zero: expected identity, identity:SCALE, or one of he-normal"),
        (("--init", "identity:x"), "--init identity:x: expected identity, identity:SCALE"),
    ):
        code, _, errors = call(capsys, "analyze", "recurrence", "--backend", "serial", *options)
        assert code == 2
        assert message in errors


def test_activations_of_a_saved_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.mlp([20, 10], 10).build((64,)).initialize()
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


def training(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str, str]:
    return call(capsys, "analyze", "training", "--model", "mlp:12", "--epochs", "2", *options)


def test_training_is_compared_over_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "training.json"
    options = "--activation", "relu", "--activation", "tanh", "--seeds", "2", "--seed", "5", "--json", str(path)
    code, output, errors = training(capsys, "--backend", "serial", *options)
    assert (code, errors) == (0, "")
    assert [line.split()[0] for line in output.splitlines()[-2:]] == ["relu", "tanh"]
    assert "±" in output
    content = json.loads(path.read_text())
    assert [(run["activation"], run["seed"]) for run in content["runs"]] == [
        ("relu", 5),
        ("relu", 6),
        ("tanh", 5),
        ("tanh", 6),
    ]
    relu, _, tanh, _ = content["runs"]
    assert relu["steps"] == [0, 10, 20, 30, 40]
    assert relu["loss"][-1] < relu["loss"][0]
    assert min(relu["sparsity"]) > 0.2
    assert max(tanh["sparsity"]) == 0


def test_what_takes_several_runs_tells_which_one_it_is_at(capsys: pytest.CaptureFixture[str]) -> None:
    several = "--activation", "relu", "--activation", "tanh"
    _, output, _ = training(capsys, "--backend", "serial", *several, "--seeds", "2", "--seed", "5")
    lines = [re.sub(r" \(.* left\)", "", line) for line in output.splitlines() if line.startswith("run ")]
    runs = ["relu, seed 5", "relu, seed 6", "tanh, seed 5", "tanh, seed 6"]
    assert lines == [f"run {number} of 4: {run}" for number, run in enumerate(runs, 1)]
    assert re.search(r"run 2 of 4: .* \(\d+:\d\d left\)", output)
    _, output, _ = gradients(capsys, "--model", "mlp:5", "--samples", "50", *several)
    assert "run 1 of 2: relu\n" in output
    options = "--backend", "serial", "--data", "digits", "--model", "rnn:4", "--samples", "50"
    _, output, _ = call(capsys, "analyze", "recurrence", *options)
    assert "run 1 of 3: identity\n" in output


def test_losses_and_weights_of_the_command_are_those_of_the_library(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    path, x, y = tmp_path / "a.json", rng.random((90, 4), np.float32), np.arange(90) % 3
    np.savez(tmp_path / "d.npz", x=x, y=y, sample_weight=np.arange(90.0))
    data = dr.data.load(tmp_path / "d.npz")
    options = "--data", str(tmp_path / "d.npz"), "--model", "mlp:5", "--loss", "focal:2", "--json", str(path)
    assert gradients(capsys, *options, "--samples", "80")[0] == 0
    model = nn.mlp([5], 3).build((4,)).initialize(0)
    with dr.start(backend="serial") as coordinator:
        flow = analysis.gradient_flow(
            coordinator, model, data.train.of_rows(np.arange(80)[: len(data.train)]), loss=nn.Focal(2.0)
        )
    assert json.loads(path.read_text())["runs"][0]["loss"] == flow.loss
    assert call(capsys, "plot", "gradients", str(path), "--output", str(tmp_path / "a.png"))[0] == 0
    once = "--backend", "serial", "--seeds", "1", "--class-weight", "balanced"
    assert call(capsys, "analyze", "training", *options, *once, "--epochs", "1", "--schedule", "constant")[0] == 0
    (run,) = json.loads(path.read_text())["runs"]
    with dr.start(backend="serial") as coordinator:
        result = coordinator.fit(
            nn.mlp([5], 3),
            data.train,
            optim.SGD(0.1, momentum=0.9),
            epochs=1,
            batch_size=64,
            loss=nn.Focal(2.0),
            class_weight="balanced",
        )
    assert run["loss"][0] == result.losses[0]
    assert call(capsys, "analyze", "learning-rate", *options, *once[:2], "--steps", "5")[0] == 0
    assert json.loads(path.read_text())["losses"][0] != result.losses[0]  # classes weigh what samples do
    assert json.loads(path.read_text())["loss"] == "focal:2"


def test_a_course_is_what_fit_has_watched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, data = tmp_path / "training.json", dr.data.load("digits")
    assert training(capsys, "--backend", "serial", "--seeds", "1", "--lr", "0.05", "--json", str(path))[0] == 0
    (run,) = json.loads(path.read_text())["runs"]
    model, rule = nn.mlp([12], 10), optim.SGD(optim.Cosine(0.05, 2), momentum=0.9)
    with dr.start(backend="serial") as coordinator:
        result = coordinator.fit(model, data.train, rule, epochs=2, batch_size=64, watch=dr.Watch(10))
        test = coordinator.evaluate(model, data.test)
    assert (run["test_loss"], run["test_accuracy"]) == (test.loss, test.accuracy)
    assert run["loss"] == [step.loss for step in result.watched]
    assert run["sparsity"] == [step.layers[0].sparsity for step in result.watched]
    squares = [sum(param.gradient_norm**2 for param in step.params) for step in result.watched]
    assert np.square(run["gradient_norm"]) == pytest.approx(squares)


@pytest.mark.long
def test_training_gives_the_same_file_on_any_number_of_workers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / "1.json", tmp_path / "3.json"]
    for workers, path in zip("13", paths, strict=True):
        options = "--backend", "local", "--workers", workers, "--shards", "4", "--seeds", "2"
        assert training(capsys, *options, "--json", str(path))[0] == 0
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_convolutions_are_watched_after_their_pooling(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "training.json"
    options = "--model", "cnn", "--epochs", "1", "--seeds", "1", "--json", str(path)
    assert call(capsys, "analyze", "training", "--backend", "serial", *options)[0] == 0
    (run,) = json.loads(path.read_text())["runs"]
    assert 0.1 < run["sparsity"][0] < 0.5  # the largest of 4 is seldom 0


def test_training_that_diverges_is_told_in_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "training.json"
    options = "--activation", "leaky-relu", "--lr", "1e30", "--seeds", "2", "--json", str(path)
    code, output, errors = training(capsys, "--backend", "serial", *options)
    assert (code, errors) == (0, "")
    assert "2 of 2" in output
    assert {(run["test_loss"], run["test_accuracy"]) for run in json.loads(path.read_text())["runs"]} == {(None, None)}


def test_training_tells_wrong_options_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, told in (
        (("--schedule", "never"), "--schedule never: expected constant"),
        (("--seed", str(2**64 - 1)), "seeds must stay below 2^64"),
        (("--model", "cnn:3"), "cnn takes no numbers"),
        (("--json", str(tmp_path / "no" / "file.json")), "does not exist or can't be written to"),
        (("--batch-size", "2", "--shards", "4"), "4 shards"),
    ):
        code, _, errors = training(capsys, "--backend", "serial", *options)
        assert code == 2
        assert told in errors
        assert errors.count("\n") == 1

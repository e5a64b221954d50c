"""Losses, weights and drawing on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn
from dist_relu.core.arrays import Array
from tests.cli.test_cli import call, train

N = 80
X = np.random.default_rng(3).standard_normal((N, 6)).astype(np.float32)
NUMBERS = X[:, :2].copy()
CLASSES = (X[:, 0] > 1).astype(int) + (X[:, 1] > 1)
LABELS = (X[:, :2] > 0.3).astype(int)


def saved(folder: Path, **arrays: object) -> str:
    path = folder / "data.npz"
    np.savez(path, x=X, **arrays)  # type: ignore[arg-type]
    return str(path)


@pytest.mark.parametrize(
    ("y", "text", "loss", "words"),
    [
        (NUMBERS, "huber:0.5", nn.Huber(0.5), "Regression (2 outputs), Huber loss;"),
        (NUMBERS, "mae", nn.MeanAbsoluteError(), "Regression (2 outputs), mean absolute error;"),
        (NUMBERS, "mse", None, "Regression (2 outputs), mean squared error;"),
        (LABELS, "bce:1,3", nn.BinaryCrossEntropy((1.0, 3.0)), "2 labels, binary cross-entropy;"),
        (LABELS, "focal:1,0.25", nn.Focal(1.0, 0.25), "2 labels, focal loss;"),
        (CLASSES, "focal", nn.Focal(), "3 classes, focal loss;"),
        (CLASSES, "cross-entropy", None, "3 classes, cross-entropy;"),
    ],
)
def test_a_model_is_tested_with_the_loss_that_it_was_trained_with(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    y: Array,
    text: str,
    loss: nn.Loss | None,
    words: str,
) -> None:
    data, logs = saved(tmp_path, y=y), tmp_path / "logs"
    options = "--data", data, "--model", "mlp:4", "--epochs", "2", "--loss", text, "--log-dir", str(logs)
    code, out, _ = train(capsys, *options)
    assert code == 0
    assert out.startswith(words)
    assert dr.load_model(logs / "model.safetensors").loss == loss
    tested = next(line for line in out.splitlines() if line.startswith("Test ")).partition(" Trained")[0]
    code, out, _ = call(capsys, "evaluate", str(logs), "--data", data, "--backend", "serial")
    assert (code, out) == (0, f"{tested}\n")
    code, out, _ = call(capsys, "reproduce", str(logs), "--backend", "serial")
    assert code == 0
    assert "Equal to the bit" in out


def test_predictions_of_labels_say_of_each_whether_it_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, model = saved(tmp_path, y=LABELS), tmp_path / "model.safetensors"
    train(capsys, "--data", data, "--model", "mlp:8", "--epochs", "2", "--loss", "bce", "--save", str(model))
    code, out, _ = call(capsys, "predict", str(model), data, "--backend", "serial")
    assert code == 0
    expected = (dr.load_model(model).forward(X) > 0).astype(int)
    assert [list(map(int, line.split())) for line in out.splitlines()] == expected.tolist()


def test_weights_and_drawing_reach_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digests = []
    weighted = {"y": CLASSES, "sample_weight": 1.0 + CLASSES}
    for arrays, options, words in (
        ({"y": CLASSES}, [], "cross-entropy;"),
        ({"y": CLASSES}, ["--class-weight", "balanced"], "cross-entropy, weighted;"),
        ({"y": CLASSES}, ["--sampler", "balanced"], "cross-entropy, classes drawn equally often;"),
        (weighted, ["--sampler", "weighted"], "cross-entropy, drawn by weight;"),
        (weighted, [], "cross-entropy, weighted;"),
        ({"y": CLASSES}, ["--class-weight", "0:1,1:2,2:3"], "cross-entropy, weighted;"),
        ({"y": np.array(["a", "b", "c"])[CLASSES]}, ["--class-weight", "c:3,b:2"], "cross-entropy, weighted;"),
    ):
        report = tmp_path / "report.json"
        command = "--data", saved(tmp_path, **arrays), "--model", "mlp:4", "--epochs", "1", "--report", str(report)
        code, out, _ = train(capsys, *command, *options)
        assert code == 0
        assert words in out
        digests.append(json.loads(report.read_text())["params_sha256"])
    assert len(set(digests[:5])) == 5
    assert digests[4] == digests[5] == digests[6]


@pytest.mark.parametrize(
    ("y", "options", "message"),
    [
        (CLASSES, ["--loss", "nll"], "--loss nll: expected cross-entropy, focal"),
        (CLASSES, ["--loss", "huber:x"], "--loss huber:x: expected cross-entropy, focal"),
        (CLASSES, ["--loss", "focal:1,0.5,2"], "at most two numbers, not 3"),
        (NUMBERS, ["--loss", "huber:0"], "must be above 0"),
        (CLASSES, ["--loss", "bce"], "Class numbers are for the cross-entropy"),
        (NUMBERS, ["--loss", "bce"], "needs targets from 0 to 1"),
        (LABELS, [], "loss for labels that are there or not: the binary cross-entropy"),
        (CLASSES, ["--loss", "mae"], "mean absolute error needs real targets"),
        (CLASSES, ["--loss", "focal", "--label-smoothing", "0.1"], "not for --loss focal"),
        (CLASSES, ["--class-weight", "9:2"], "weight for class 9, which no sample has"),
        (CLASSES, ["--class-weight", "even"], "expected balanced, or CLASS:WEIGHT"),
        (NUMBERS, ["--class-weight", "balanced"], "is for class numbers"),
        (CLASSES, ["--sampler", "weighted"], "but they have none"),
        (NUMBERS, ["--sampler", "balanced"], "expected class numbers"),
    ],
)
def test_what_does_not_suit_the_data_is_refused(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    y: Array,
    options: list[str],
    message: str,
) -> None:
    code, _, errors = train(capsys, "--data", saved(tmp_path, y=y), "--model", "mlp:4", *options)
    assert code == 2
    assert message in errors

"""What can be done, but is hardly what was meant, is warned of; what is merely unusual is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn, optim
from tests.cli.test_cli import train

RNG = np.random.default_rng(0)
X = RNG.standard_normal((200, 8)).astype("float32")
Y = (X[:, 0] > 0).astype(int)


def fit(x: Any, y: Any, *layers: nn.Layer, lr: float = 0.01, epochs: int = 1, batch_size: int = 50) -> dr.FitResult:
    model = nn.Sequential(*(layers or (nn.Dense(4), nn.ReLU(), nn.Dense(int(np.max(y)) + 1))))
    with dr.start(backend="serial") as coordinator:
        return coordinator.fit(model, (x, y), optim.SGD(lr), epochs=epochs, batch_size=batch_size)


def test_nothing_is_said_of_what_is_usual() -> None:
    fit(X, Y)
    fit(X + 3, Y)
    fit(X, np.arange(200) // 40 * 2)  # some classes are missing in a part of the data


@pytest.mark.parametrize("first", [nn.BatchNorm(), nn.LayerNorm(), nn.Embedding(1000, 4)])
def test_layers_that_take_large_numbers_get_them(first: nn.Layer) -> None:
    fit(np.abs(100 * X).astype(int), Y, first, nn.Flatten(), nn.Dense(2))


def test_large_samples_are_warned_of() -> None:
    with pytest.warns(dr.TrainingWarning, match=r"their root mean square is \d+.*Scale them first, such as x / 255"):
        fit(RNG.integers(0, 256, (200, 8)).astype(np.uint8), Y, lr=1e-6)


def test_a_batch_that_is_larger_than_the_data_is_warned_of() -> None:
    with pytest.warns(dr.TrainingWarning, match="batch_size=1000 is larger than the data set of 200 samples"):
        fit(X, Y, batch_size=1000)


def test_labels_with_gaps_are_warned_of() -> None:
    with pytest.warns(dr.TrainingWarning, match="only 2 of these 1001 classes occur"):
        fit(X, Y * 1000)
    with pytest.warns(dr.TrainingWarning, match="class 0 never occurs"):
        fit(X, Y + 1)


def test_a_loss_that_grows_is_warned_of() -> None:
    with pytest.warns(dr.TrainingWarning, match=r"The loss has grown from .* Lower the learning rate"):
        fit(X, X[:, 0] / 3, nn.Dense(1), lr=3, epochs=2)


@pytest.mark.parametrize(
    ("rule", "epochs", "what"),
    [
        (optim.SGD(10, momentum=0.9), 5, r"The loss rose from .* in epoch 1, and ended at .* Lower the learning rate"),
        (optim.SGD(optim.Constant(1e-30)), 5, "Nothing was learned: the accuracy of"),
        (optim.Adam(1), 5, "Nothing was learned: the accuracy of"),
    ],
)
def test_a_training_that_ends_where_nothing_is_known_is_warned_of(
    rule: optim.Optimizer, epochs: int, what: str
) -> None:
    model = nn.Sequential(nn.Dense(256), nn.ReLU(), nn.Dense(128), nn.ReLU(), nn.Dense(10))
    with dr.start(backend="serial") as coordinator, pytest.warns(dr.TrainingWarning, match=what):
        coordinator.fit(model, dr.data.load("digits").train, rule, epochs=epochs, batch_size=64)


def test_the_commonest_class_is_a_fair_answer_while_the_loss_falls() -> None:
    fit(X, (np.arange(200) == 7).astype(int), lr=0.1, epochs=40)


def test_pytorchs_order_of_arguments_is_warned_of() -> None:
    images = RNG.standard_normal((20, 32, 32, 3)).astype("float32")
    with pytest.warns(dr.TrainingWarning, match=r"perhaps you mean Conv2d\(16, 3\)"):
        fit(images, np.arange(20) % 2, nn.Conv2d(3, 16, 3), nn.Flatten(), nn.Dense(2), batch_size=10)
    fit(images, np.arange(20) % 2, nn.Conv2d(16, 3), nn.Flatten(), nn.Dense(2), batch_size=10)


def test_the_command_line_warns_in_a_line_that_names_its_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "d.npz", x=X, y=Y)
    options = "--data", str(tmp_path / "d.npz"), "--epochs", "1", "--model", "mlp:4", "--batch-size", "1000000"
    code, _, errors = train(capsys, *options)
    assert code == 0
    assert errors == (
        "dist-relu: warning: --batch-size 1000000 is larger than the data set of 160 samples, so that every epoch is a "
        "single step with all of them.\n"
    )
    assert train(capsys, *options, "--quiet") == (0, "", "")

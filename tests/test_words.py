"""What objects show of themselves, and what is said to those who know other libraries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn, optim


def test_reprs_are_a_line() -> None:
    x, y = np.zeros((10, 4)), np.arange(10) % 3
    assert repr(dr.Dataset(x, y)) == "Dataset(10 samples of shape (4,), float64, 3 classes)"
    model = nn.Sequential(nn.Dense(8), nn.Residual([nn.Dense(8, bias=False), nn.ReLU()]), nn.Dense(3))
    assert repr(model) == (
        "Sequential(Dense(units=8), Residual(body=(Dense(units=8, bias=False), ReLU())), Dense(units=3), "
        "dtype='float32')"
    )
    with dr.start(backend="serial") as coordinator:
        assert repr(coordinator) == "Coordinator(serial, workers: 1)"
        result = coordinator.fit(model, (x, y), optim.SGD(0.1), epochs=2, batch_size=5)
    assert repr(result).startswith("FitResult(epochs: 2, steps: 4, in the last epoch loss ")
    assert len(repr(result)) < 120
    assert repr(coordinator) == "Coordinator(serial, closed)"


def test_what_sequential_shows_makes_the_same_model_again() -> None:
    model = nn.Sequential(nn.Dense(8, init=nn.GlorotNormal(2.0)), nn.LeakyReLU(0.2), nn.Conv2d(3, (1, 2), padding=1))
    names = {name: getattr(nn, name) for name in nn.__all__}
    assert repr(eval(repr(model), names)) == repr(model)


def test_layers_may_come_in_a_list() -> None:
    assert [type(layer) for layer in nn.Sequential([nn.Dense(3), nn.ReLU()]).layers] == [nn.Dense, nn.ReLU]


def other(name: str) -> Any:
    """For calls that types forbid."""
    return getattr(nn, name, None) or getattr(optim, name)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: other("Adam")(betas=(0.9, 0.99)), r"Adam has no argument betas; write beta1=\.\.\., beta2=\.\.\."),
        (lambda: other("Dense")(64, 10), r"Dense\(bias=10\).* Inputs are counted by the layer itself"),
        (lambda: other("AdamW")(eps=1e-8), r"write epsilon=\.\.\."),
        (lambda: other("LayerNorm")(eps=1e-8), r"write epsilon=\.\.\."),
        (lambda: other("Dense")(in_features=3), "has no argument in_features"),
        (lambda: other("Sequential")(nn.ReLU), r"not their class ReLU: write ReLU\(\)"),
        (lambda: other("Sequential")("relu"), "takes layers, not an object of type str"),
    ],
)
def test_words_of_other_libraries_are_answered(call: Callable[[], object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call()

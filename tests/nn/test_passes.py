"""Training computes in shared memory, where layers may overwrite what they were given; the gradients are the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn
from tests.twin import Array

MODELS = [
    pytest.param(lambda: nn.mlp((300, 20), 10), id="mlp"),
    pytest.param(lambda: nn.cnn((8, 8, 1), 10), id="cnn"),
    pytest.param(lambda: nn.resnet(8, (8, 8, 1), 10), id="resnet"),
    pytest.param(lambda: nn.rnn(130, 10, (8, 8)), id="rnn"),
    pytest.param(
        lambda: (nn.Residual([nn.Dense(64), nn.GELU(), nn.Dense(64)]), nn.LayerNorm(), nn.PReLU(), nn.Dense(10)),
        id="Residual",
    ),
    pytest.param(
        lambda: (nn.Residual([nn.Dense(30), nn.ReLU()], [nn.Dense(30), nn.Tanh()]), nn.SwiGLU(), nn.Dense(10)),
        id="branches",
    ),
    pytest.param(lambda: (nn.Embedding(2, 4), nn.Dense(6), nn.ELU(), nn.Flatten(), nn.Dense(10)), id="Embedding"),
    pytest.param(
        lambda: (
            nn.Reshape((8, 8, 1)),
            nn.Conv2d(4, 3),
            nn.BatchNorm(),
            nn.Mish(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Dense(10),
        ),
        id="BatchNorm",
    ),
]


@dataclass(eq=False)
class Swap(nn.Layer):
    """A layer of the user's own whose results are views, forward and backward."""

    def build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return input_shape[1], input_shape[0]

    def params(self) -> list[nn.Param]:
        return []

    def forward(self, x: Array, run: nn.Pass = nn.PLAIN) -> Array:
        return np.ascontiguousarray(x.transpose(0, 2, 1))

    def backward(self, dy: Array, run: nn.Pass = nn.PLAIN, *, wants_dx: bool = True) -> Array:
        return dy.transpose(0, 2, 1)


SWAPPED: list[nn.Layer] = [nn.ReLU(), nn.LeakyReLU(), nn.PReLU(), nn.BatchNorm(), nn.LayerNorm(), nn.Softmax()]
MODELS += [
    pytest.param(
        lambda layer=layer: (nn.Reshape((8, 8)), nn.Dense(8), layer, Swap(), nn.Flatten(), nn.Dense(10)),
        id=f"{type(layer).__name__}-Swap",
    )
    for layer in SWAPPED
]


@pytest.mark.parametrize("make", MODELS)
def test_gradients_are_those_of_a_plain_pass(
    make: Callable[[], nn.Sequential | tuple[nn.Layer, ...]], digits: dr.data.Split
) -> None:
    made = make()
    layers = made.layers if isinstance(made, nn.Sequential) else made
    model = nn.Sequential(*layers, dtype="float64").build((64,)).initialize(seed=1)
    x, y = digits.train.x[:40].astype(float), digits.train.y[:40]
    if isinstance(layers[0], nn.Embedding):
        x = np.floor(x)  # symbols
    with dr.start(backend="serial") as coordinator:
        gradients = coordinator.gradients(model, (x, y), shards=1)
    run = nn.PlainPass(training=True)
    outputs = model.forward(x, run)
    d_outputs = np.empty_like(outputs)
    nn.CrossEntropy().backward(outputs, y, 1 / len(x), d_outputs)
    model.backward(d_outputs, run)
    for name, param in zip(model.names, model.params, strict=True):
        if param.momentum is None:
            np.testing.assert_allclose(gradients[name], param.grad, rtol=1e-9, atol=1e-13, err_msg=name)

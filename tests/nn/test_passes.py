"""Training computes in shared memory, where layers may overwrite what they were given; the gradients are the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn
from dist_relu.nn.fusion import last_layers
from dist_relu.nn.layer import PassObserver, PreactivationObserver
from dist_relu.nn.passes import ShardPass, measure
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
    pytest.param(lambda: (nn.Embedding(2, 4), nn.Dense(6), nn.GELU(), nn.Flatten(), nn.Dense(10)), id="Embedding"),
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


@final
class Onlooker(PreactivationObserver):
    """Keeps what it is shown, by the number of the layer."""

    def __init__(self) -> None:
        self.preactivations: dict[int, list[Array]] = {}
        self.outputs: dict[int, Array] = {}

    def see_preactivations(self, number: int, x: Array, bias: Array | None) -> None:
        self.preactivations.setdefault(number, []).append(x + (0 if bias is None else bias))

    def see_output(self, number: int, y: Array) -> None:
        self.outputs[number] = y.copy()


def shard_pass(model: nn.Sequential, num_samples: int, observer: PassObserver | None) -> ShardPass:
    """A pass as training makes them, with the random numbers of a plain pass of seed 1."""
    layout = measure(model, nn.MeanSquaredError(), np.zeros((1, *model.output_shape)))
    memory = np.empty(layout.size_bytes(num_samples), np.uint8)
    run = ShardPass(layout, layout.arrays(memory, num_samples), model.params, seed=1)
    run.enter(0, num_samples, batch_size=num_samples, step=0, shard=0, observer=observer)
    run.empty((num_samples, *model.input_shape), model.dtype)
    run.empty((num_samples, *model.output_shape), np.float64)  # for targets
    return run


OBSERVED: list[tuple[list[nn.Layer], tuple[int, ...], list[int]]] = [
    ([nn.Dense(5), nn.ReLU(), nn.Dense(4)], (3,), [1]),
    ([nn.Dense(5), nn.GELU(), nn.Dense(4), nn.Tanh()], (3,), [1, 3]),
    ([nn.Conv2d(4, 3), nn.ReLU()], (6, 6, 2), [1]),
    ([nn.Conv2d(4, 3), nn.ReLU(), nn.MaxPool2d(2)], (6, 6, 2), [1]),
    ([nn.Dense(5), nn.BatchNorm(), nn.ReLU()], (3,), [2]),
    ([nn.Residual([nn.Dense(3), nn.ReLU(), nn.Dense(3)]), nn.ReLU()], (3,), [1]),
    ([nn.LayerNorm(), nn.LeakyReLU(), nn.PReLU(), nn.RReLU(), nn.CReLU()], (4,), [1, 2, 3, 4]),
    ([nn.ReGLU(), nn.Softmax()], (4,), []),
]


@pytest.mark.parametrize(("layers", "shape", "activations"), OBSERVED, ids=[str(layers) for layers, _, _ in OBSERVED])
def test_an_observer_sees_what_goes_into_activations_and_comes_out_of_layers(
    layers: list[nn.Layer], shape: tuple[int, ...], activations: list[int], rng: np.random.Generator
) -> None:
    model = nn.Sequential(layers, dtype="float64").build(shape).initialize(1)
    x = rng.standard_normal((4, *shape))
    singly = [x, *model.activations(x, nn.PlainPass(training=True, seed=1))]
    onlooker = Onlooker()
    y = model.forward(x, shard_pass(model, len(x), onlooker))
    ends = last_layers(model.blueprint().build(shape).layers)
    assert [*onlooker.outputs] == list(range(len(ends)))
    for number, end in enumerate(ends):
        np.testing.assert_allclose(onlooker.outputs[number], singly[end + 1], rtol=1e-12, atol=1e-14)
    seen = [np.concatenate(parts) for parts in onlooker.preactivations.values()]
    for preactivations, activation in zip(seen, activations, strict=True):
        np.testing.assert_allclose(preactivations, singly[activation], rtol=1e-12, atol=1e-14)
    assert y.tobytes() == model.forward(x, shard_pass(model, len(x), None)).tobytes()

"""BatchNorm over the whole batch, of which every shard holds a part: its values, beside others'."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn
from tests.twin import Array

Norm = partial(nn.BatchNorm, scope="batch")
DENSE: tuple[nn.Layer, ...] = (
    nn.Dense(7, bias=False),
    Norm(),
    nn.ReLU(),
    nn.Residual([nn.Dense(7, bias=False), Norm(), nn.Tanh()], [Norm(epsilon=0.1)]),
    nn.Parallel([[nn.Dense(4), Norm()], [nn.Dense(3)]]),
    nn.Dense(3),
)
CONVOLUTIONAL: tuple[nn.Layer, ...] = (
    nn.Conv2d(4, 3, bias=False),
    Norm(),
    nn.ReLU(),
    nn.Conv2d(5, 3, stride=2, bias=False),
    Norm(),
    nn.ReLU(),
    nn.GlobalAvgPool2d(),
    nn.Dense(3),
)
SHAPES = {DENSE: (6,), CONVOLUTIONAL: (6, 5, 2)}


def model_and_data(layers: tuple[nn.Layer, ...], rng: np.random.Generator) -> tuple[nn.Sequential, Array, Array]:
    """A float64 model and a batch of 13 samples, whose shards differ in size, mean and variance."""
    shape = SHAPES[layers]
    model = nn.Sequential(*layers, dtype="float64").blueprint().build(shape).initialize(seed=2)
    for param in model.params:
        if param.momentum is None:
            param.value = param.value + 0.3 * rng.standard_normal(param.shape)
    scale = np.linspace(0.5, 3, 13).reshape(13, *[1] * len(shape))
    return model, scale * rng.standard_normal((13, *shape)) + scale, rng.standard_normal((13, 3))


def take_step(coordinator: dr.Coordinator, model: nn.Sequential, x: Array, y: Array) -> float:
    """Let the parameters become less by their gradient over the batch; returns the loss before."""
    options: dict[str, Any] = {"epochs": 1, "batch_size": 13, "shards": 4, "shuffle": False}
    return float(coordinator.fit(model, (x, y), dr.optim.SGD(1.0), **options).losses[0])


@pytest.mark.parametrize("layers", [DENSE, CONVOLUTIONAL], ids=["dense", "convolutional"])
def test_gradients_over_all_shards_agree_with_finite_differences(
    layers: tuple[nn.Layer, ...], rng: np.random.Generator
) -> None:
    model, x, y = model_and_data(layers, rng)
    before, step = model.values.copy(), 1e-6
    with dr.start(backend="serial") as coordinator:

        def loss_at(values: Array) -> float:
            model.values = values
            return take_step(coordinator, model, x, y)

        loss_at(before)
        gradient = before - model.values
        trained = [param.momentum is None for param in model.params for _ in range(param.value.size)]
        for _ in range(8):
            direction = rng.standard_normal(before.shape) * trained
            slope = (loss_at(before + step * direction) - loss_at(before - step * direction)) / (2 * step)
            along = gradient * direction
            assert abs(along.sum() - slope) < 1e-7 * (1 + np.abs(along).sum())


@pytest.mark.peer
@pytest.mark.parametrize("shape", [(6,), (4, 5, 6)], ids=["dense", "images"])
def test_it_is_that_of_pytorch_over_the_whole_batch(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    layers: list[nn.Layer] = [nn.Dense(6), Norm(), nn.ReLU(), nn.Dense(6), Norm()]
    if len(shape) > 1:
        layers = [nn.Conv2d(6, 1), Norm(), nn.ReLU(), nn.Conv2d(6, 1), Norm(), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Dense(3), dtype="float64").build(shape).initialize(seed=2)
    x, y = 3 + 2 * rng.standard_normal((13, *shape)), rng.standard_normal((13, 3))

    names = ("weight", "bias", "running_mean", "running_var")
    params = {name: torch.tensor(param.value) for name, param in zip(model.names, model.params, strict=True)}
    trained = [params[name].requires_grad_() for name in params if "running" not in name]

    def linear(z: Any, number: int) -> Any:  # a convolution of 1 x 1 is a product, too
        weight = params[f"{number}.weight"]
        return z @ weight.reshape(weight.shape[-2:]) + params[f"{number}.bias"]

    def normalised(z: Any, number: int) -> Any:
        weight, bias, mean, variance = (
            params[f"{number}.{name}"] for name in (*names[:2], "running_mean", "running_variance")
        )
        rows = torch.nn.functional.batch_norm(z.reshape(-1, 6), mean, variance, weight, bias, training=True)
        return rows.reshape(z.shape)

    z = normalised(linear(torch.relu(normalised(linear(torch.tensor(x), 0), 1)), 3), 4)
    loss = ((linear(z.reshape(13, -1), len(model.layers) - 1) - torch.tensor(y)) ** 2).mean()
    loss.backward()
    with torch.no_grad():
        for param in trained:
            param.sub_(param.grad)
    with dr.start(2, backend="local") as coordinator:
        assert take_step(coordinator, model, x, y) == pytest.approx(loss.item(), rel=1e-12)
    for name, param in zip(model.names, model.params, strict=True):
        np.testing.assert_allclose(param.value, params[name].detach().numpy(), rtol=1e-10, atol=1e-11, err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_large_mean_does_not_hide_the_variance(dtype: str, rng: np.random.Generator) -> None:
    x = (1e3 + rng.standard_normal((60, 2))).astype(dtype)
    model = nn.Sequential(Norm(momentum=1.0), nn.Dense(3), dtype=dtype)
    with dr.start(backend="serial") as coordinator:
        coordinator.fit(model, (x, rng.standard_normal((60, 3))), dr.optim.SGD(1e-3), epochs=1, batch_size=60, shards=7)
    expected = x.astype(float).var(axis=0, ddof=1)
    np.testing.assert_allclose(model.params[3].value, expected, rtol=1e-12 if dtype == "float64" else 1e-4)

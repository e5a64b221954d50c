"""Normalisation, dropout, residual connections, embeddings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn
from tests.gradients import check_backward
from tests.twin import Array

TRAINING = [
    pytest.param((nn.BatchNorm(),), (7,), id="BatchNorm-1d"),
    pytest.param((nn.BatchNorm(epsilon=0.1),), (3, 4, 5), id="BatchNorm-2d"),
    pytest.param((nn.LayerNorm(),), (7,), id="LayerNorm"),
    pytest.param((nn.LayerNorm(epsilon=0.1),), (3, 5), id="LayerNorm-2d"),
    pytest.param((nn.Standardize([0.3, -0.2], [0.5, 2.0]),), (3, 2), id="Standardize"),
    pytest.param((nn.Standardize([0.3, -0.2], [0.5, 2.0]),), (6,), id="Standardize-flat"),
    pytest.param((nn.Dropout(0.3),), (11,), id="Dropout"),
    pytest.param((nn.Residual([nn.Dense(6), nn.ReLU(), nn.Dense(6)]),), (6,), id="Residual"),
    pytest.param((nn.Residual([nn.Dense(4), nn.ReLU()], [nn.Dense(4)]), nn.ReLU()), (6,), id="Residual-shortcut"),
    pytest.param((nn.Dense(5), nn.BatchNorm(), nn.ReLU(), nn.Dropout(0.5), nn.Dense(3)), (6,), id="all-together"),
]


def built(layers: tuple[nn.Layer, ...], shape: tuple[int, ...], dtype: str = "float64") -> nn.Sequential:
    return nn.Sequential(*layers, dtype=dtype).build(shape).initialize(seed=1)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("layers", "shape"), TRAINING)
def test_backward_agrees_with_finite_differences(
    layers: tuple[nn.Layer, ...], shape: tuple[int, ...], training: bool, rng: np.random.Generator
) -> None:
    model = built(layers, shape)
    x = rng.standard_normal((9, *shape))
    # Running means must stand still between evaluations, or evaluation mode would differ from one to the next.
    check_backward(model, x, rng, run=lambda: nn.PlainPass(training=training, seed=4))


def test_batch_norm_gives_every_channel_mean_0_and_variance_1(rng: np.random.Generator) -> None:
    y = built((nn.BatchNorm(epsilon=1e-12),), (4, 4, 3)).forward(
        5 + 3 * rng.standard_normal((50, 4, 4, 3)), nn.PlainPass(training=True)
    )
    np.testing.assert_allclose(y.mean(axis=(0, 1, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(y.var(axis=(0, 1, 2)), 1, rtol=1e-9)


def test_running_statistics_are_those_of_the_shards(digits: dr.data.Split) -> None:
    model = nn.Sequential(nn.BatchNorm(momentum=0.25), nn.Dense(10))
    x, y = digits.train.x[:40], digits.train.y[:40]
    with dr.start(backend="serial") as coordinator:
        coordinator.fit(model, (x, y), dr.optim.SGD(), epochs=1, batch_size=40, shards=4, shuffle=False)
    shards = x.reshape(4, 10, 64)
    norm = model.layers[0]
    assert isinstance(norm, nn.BatchNorm)
    np.testing.assert_allclose(norm.running_mean.value, 0.25 * shards.mean(axis=(0, 1)), atol=1e-6)
    expected = 0.75 + 0.25 * shards.var(axis=1, ddof=1).mean(axis=0)
    np.testing.assert_allclose(norm.running_variance.value, expected, rtol=1e-5)


def test_batch_norm_learns_and_evaluates_like_it_trains(digits: dr.data.Split) -> None:
    model = nn.Sequential(nn.Dense(64), nn.BatchNorm(), nn.ReLU(), nn.Dense(10))
    with dr.start(backend="serial") as coordinator:
        coordinator.fit(model, digits.train, dr.optim.SGD(momentum=0.9), epochs=10, batch_size=64, shards=2)
        assert (coordinator.evaluate(model, digits.test).accuracy or 0) > 0.95
        assert set(coordinator.gradients(model, digits.train)) == {
            *("0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias"),
        }


def test_dropout_drops_its_share_and_keeps_the_mean(rng: np.random.Generator) -> None:
    model = built((nn.Dropout(0.3),), (1000,))
    x = np.ones((100, 1000))
    y = model.forward(x, nn.PlainPass(training=True, seed=1))
    assert (y == 0).mean() == pytest.approx(0.3, abs=0.01)
    assert y.mean() == pytest.approx(1, abs=0.01)
    assert (y != model.forward(x, nn.PlainPass(training=True, seed=2))).any()
    assert (model.forward(x) == x).all()


def test_an_embedding_looks_up_and_adds_up(rng: np.random.Generator) -> None:
    model = built((nn.Embedding(5, 3),), (4,))
    x = rng.integers(0, 5, (7, 4)).astype(float)
    weight = model.params[0].value
    assert (model.forward(x) == weight[x.astype(int)]).all()
    dy = rng.standard_normal((7, 4, 3))
    model.backward(dy)
    expected = np.zeros((5, 3))
    np.add.at(expected, x.astype(int), dy)
    np.testing.assert_allclose(model.params[0].grad, expected, atol=1e-12)
    with pytest.raises(ValueError, match=r"symbols from 0 to 5; expected 0 to 4"):
        model.forward(np.array([[0.0, 5, 1, 2]]))


def test_branches_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the body gives shape \(4,\), but the shortcut gives \(6,\)"):
        built((nn.Residual([nn.Dense(4)]),), (6,))


def test_parameters_of_nested_layers_have_names_of_their_own() -> None:
    model = built((nn.Residual([nn.Dense(4), nn.ReLU(), nn.Dense(4)], [nn.Dense(4)]),), (6,))
    assert model.names[:3] == ["0.body.0.weight", "0.body.0.bias", "0.body.2.weight"]
    assert len(set(model.names)) == len(model.names)


CASES = [
    ("BatchNorm", nn.BatchNorm, lambda torch, c: torch.nn.BatchNorm1d(c)),
    ("LayerNorm", nn.LayerNorm, lambda torch, c: torch.nn.LayerNorm(c)),
]


@pytest.mark.parametrize(("name", "ours", "theirs"), CASES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.peer
def test_normalisation_is_that_of_pytorch(
    name: str, ours: type[nn.Layer], theirs: object, dtype: str, rng: np.random.Generator
) -> None:
    torch = pytest.importorskip("torch")
    assert callable(theirs)
    model = built((ours(),), (13,), dtype)
    reference = theirs(torch, 13).to(getattr(torch, dtype))
    x, dy = rng.standard_normal((2, 300, 13)).astype(dtype)
    x += 2
    weight, bias = rng.standard_normal((2, 13)).astype(dtype)
    for param, peer, value in zip(model.params[:2], (reference.weight, reference.bias), (weight, bias), strict=True):
        param.value[...] = value
        peer.data[...] = torch.from_numpy(value)
    peer_x = torch.from_numpy(x.copy()).requires_grad_()
    run = nn.PlainPass(training=True)
    y, peer_y = model.forward(x, run), reference(peer_x)
    dx = model.backward(dy, run)
    peer_y.backward(torch.from_numpy(dy))
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    pairs: list[tuple[Array, Array]] = [
        (y, peer_y.detach().numpy()),
        (dx, peer_x.grad.numpy()),
        (model.params[0].grad, reference.weight.grad.numpy()),
        (model.params[1].grad, reference.bias.grad.numpy()),
    ]
    if name == "BatchNorm":
        pairs.append((model.params[2].value, reference.running_mean.numpy()))
        pairs.append((model.params[3].value, reference.running_var.numpy()))
    for mine, peer in pairs:
        np.testing.assert_allclose(mine, peer, rtol=tolerance, atol=tolerance * np.abs(peer).max())


@pytest.mark.parametrize(
    ("front", "x_of", "channels"),
    [
        pytest.param([], lambda x: x, None, id="images"),
        pytest.param([nn.FromNCHW()], lambda x: x.transpose(0, 3, 1, 2), None, id="channels first"),
        pytest.param([nn.Reshape((4, 3, 2))], lambda x: x.reshape(50, -1), None, id="reshaped"),
        pytest.param([], lambda x: x.reshape(50, -1), 2, id="rows of images"),
    ],
)
def test_samples_are_standardised_channel_by_channel(
    front: list[nn.Layer], x_of: Callable[[Array], Array], channels: int | None, rng: np.random.Generator
) -> None:
    images = rng.standard_normal((50, 4, 3, 2)) * [3.0, 0.01] + [100, -1]
    model = nn.standardized(nn.Sequential(*front, nn.Flatten(), dtype="float64"), x_of(images), channels)
    y = model.build(x_of(images).shape[1:]).initialize().forward(np.ascontiguousarray(x_of(images)))
    expected = (images - images.mean(axis=(0, 1, 2))) / images.std(axis=(0, 1, 2))
    np.testing.assert_allclose(y, expected.reshape(50, -1), rtol=1e-9, atol=1e-9)


def test_what_is_the_same_everywhere_becomes_0_and_parameters_are_kept(rng: np.random.Generator) -> None:
    x = np.column_stack([np.full(100, np.float32(0.1)), rng.random(100, np.float32)])
    plain = nn.Sequential(nn.Dense(3)).build((2,)).initialize()
    model = nn.standardized(plain, x)
    assert (model.values == plain.values).all()
    assert model.values is not plain.values
    assert (model.activations(x)[0][:, 0] == 0).all()


def test_standardising_takes_numbers_for_each_channel() -> None:
    with pytest.raises(ValueError, match="mean has 2 numbers, and deviation 1; expected one of each"):
        nn.Standardize([0.0, 1.0], [1.0])
    with pytest.raises(ValueError, match=r"Standardize\(deviation\[0\]=0.0\): must be above 0"):
        nn.Standardize([0.0], [0.0])
    with pytest.raises(ValueError, match=r"2 channels; samples of shape \(5,\) can't be cut"):
        nn.Sequential(nn.Standardize([0.0, 0.0], [1.0, 1.0])).build((5,))

"""Sums of a million terms keep the digits of float32, wherever layers and losses form them.

What is summed is the same number again and again: rounding then goes one way, which is the worst that can happen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from dist_relu import activations, nn
from dist_relu.kernels.long_sums import TERMS, pairwise_sum, sum_rows
from tests.twin import Array

_N = 1_000_000
_TENTH = np.float32(0.1)
_TOLERANCE = 1e-5


def tenths(*shape: int) -> Array:
    return np.full(shape, _TENTH)


def backward(layers: Sequence[nn.Layer], x: Array, dy: Array | None = None) -> tuple[Array, Array, dict[str, Array]]:
    """Outputs, the gradient of the inputs, and those of the parameters; dy is 0.1 where none is given."""
    model = nn.Sequential(*layers).build(x.shape[1:]).initialize(0)
    run = nn.PlainPass(training=True)
    y = model.forward(x, run)
    dx = model.backward(tenths(*y.shape) if dy is None else dy, run)
    return y, dx, {name: param.grad for name, param in zip(model.names, model.params, strict=True)}


def assert_near(found: Array, expected: float | Array) -> None:
    np.testing.assert_allclose(found.astype(np.float64), expected, rtol=_TOLERANCE)


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Dense(3)],
        [nn.Dense(3, init=nn.Constant(0.5)), nn.ReLU()],
        [nn.RNN(3, init=nn.Constant(0.5), recurrent_init=nn.Constant(0.0), sequences=True)],
    ],
)
def test_gradients_of_biases(layers: list[nn.Layer]) -> None:
    shape = (_N // 10, 10, 2) if isinstance(layers[0], nn.RNN) else (_N, 2)
    _, _, gradients = backward(layers, tenths(*shape))
    assert_near(gradients["0.bias"], _N * float(_TENTH))


def test_gradients_of_biases_behind_which_slopes_are_functions_of_the_input() -> None:
    _, _, gradients = backward([nn.Dense(3, init=nn.Constant(0.0)), nn.SiLU()], tenths(_N, 2))
    assert_near(gradients["0.bias"], _N * float(_TENTH) / 2)


@pytest.mark.parametrize("channels", [1, 3, 40])
def test_means_over_large_images(channels: int) -> None:
    y, _, _ = backward([nn.GlobalAvgPool2d()], tenths(1, 512, 511, channels))
    assert_near(y, float(_TENTH))


def test_means_over_large_windows_and_sums_over_windows_that_overlap() -> None:
    y, dx, _ = backward([nn.AvgPool2d(128, stride=1)], tenths(1, 255, 255, 2))
    assert_near(y, float(_TENTH))
    assert_near(dx[0, 127, 127], float(_TENTH))  # the pixel that lies in all windows


@pytest.mark.parametrize(("num", "size"), [(2, 512), (20_000, 8)])
@pytest.mark.parametrize("groups", [1, 2])
def test_gradients_of_filters(num: int, size: int, groups: int) -> None:
    convolution = nn.Conv2d(2, 3, padding="valid", groups=groups)
    _, _, gradients = backward([convolution], tenths(num, size, size, 2))
    num_pixels = num * (size - 2) ** 2
    assert_near(gradients["0.bias"], num_pixels * float(_TENTH))
    assert_near(gradients["0.weight"], num_pixels * float(_TENTH) ** 2)


def test_depthwise_filters_that_are_large() -> None:
    convolution = nn.Conv2d(2, 21, padding=10, groups=2, init=nn.Constant(0.1))
    y, dx, _ = backward([convolution], tenths(1, 21, 21, 2))
    assert_near(y[0, 10, 10], 21**2 * float(_TENTH) ** 2)
    assert_near(dx[0, 10, 10], 21**2 * float(_TENTH) ** 2)


@pytest.mark.parametrize("num_parameters", [1, 3])
def test_gradients_of_learned_slopes(num_parameters: int) -> None:
    _, _, gradients = backward([nn.PReLU(num_parameters)], -tenths(_N, 3))
    assert_near(gradients["0.weight"], -_N * 3 / num_parameters * float(_TENTH) ** 2)


def test_gradients_of_a_normalisation_of_rows() -> None:
    x = np.tile(np.array([-1.0, 1.0, -1.0, 1.0], np.float32), (_N, 1))
    _, _, gradients = backward([nn.LayerNorm(1e-30)], x)
    assert_near(gradients["0.weight"], _N * float(_TENTH) * x[0].astype(np.float64))
    assert_near(gradients["0.bias"], _N * float(_TENTH))


def test_gradients_of_a_normalisation_of_channels(rng: np.random.Generator) -> None:
    x = np.repeat(np.array([[-1.0], [1.0]], np.float32), _N // 2, axis=0)
    _, _, gradients = backward([nn.BatchNorm(epsilon=1e-30)], x, np.where(x > 0, _TENTH, 0))
    assert_near(gradients["0.weight"], _N / 2 * float(_TENTH))
    assert_near(gradients["0.bias"], _N / 2 * float(_TENTH))


def test_gradients_of_a_symbol_that_is_met_all_the_time() -> None:
    _, _, gradients = backward([nn.Embedding(3, 2)], np.ones((1000, _N // 1000), np.float32))
    assert_near(gradients["0.weight"][1], _N * float(_TENTH))
    assert (gradients["0.weight"][[0, 2]] == 0).all()


def test_probabilities_of_a_million_classes_add_up_to_one(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, _N)).astype(np.float32)
    assert_near(activations.softmax(x).sum(axis=1, dtype=np.float64), 1.0)
    assert_near(np.exp(activations.log_softmax(x).astype(np.float64)).sum(axis=1), 1.0)


def test_the_gradient_of_softmax(rng: np.random.Generator) -> None:
    x, dy = rng.standard_normal((1, _N)).astype(np.float32), rng.random((1, _N)).astype(np.float32)
    y, dx, _ = backward([nn.Softmax()], x, dy.copy())
    wide = y.astype(np.float64)
    expected = wide * (dy - (dy * wide).sum())
    np.testing.assert_allclose(dx, expected, atol=_TOLERANCE * np.abs(expected).max())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_gradient_of_cross_entropy_adds_up_to_nothing(rng: np.random.Generator, smoothing: float) -> None:
    outputs, targets = rng.standard_normal((2, _N)).astype(np.float32), np.array([0, 5])
    gradient = np.empty_like(outputs)
    loss, _ = nn.CrossEntropy(smoothing).backward(outputs, targets, 1.0, gradient)
    assert np.abs(gradient.sum(axis=1, dtype=np.float64)).max() < _TOLERANCE
    wide = outputs.astype(np.float64)
    of_classes = np.log(np.exp(wide).sum(axis=1)) - wide.T
    expected = (1 - smoothing) * of_classes[targets, [0, 1]].sum() + smoothing * of_classes.mean(axis=0).sum()
    assert loss == pytest.approx(expected, rel=_TOLERANCE)


def test_the_mean_squared_error() -> None:
    outputs = tenths(_N, 2)
    loss, _ = nn.MeanSquaredError().backward(outputs, np.zeros_like(outputs), 1.0, np.empty_like(outputs))
    assert loss == pytest.approx(_N * float(_TENTH) ** 2, rel=_TOLERANCE)


@pytest.mark.parametrize("num_rows", [0, 1, TERMS])
def test_few_rows_are_added_one_after_another(rng: np.random.Generator, num_rows: int) -> None:
    rows, total = rng.standard_normal((num_rows, 5)).astype(np.float32), np.empty(5, np.float32)
    sum_rows(rows, total)
    expected = np.zeros(5, np.float32)
    for row in rows:
        expected += row
    assert (total == expected).all()


@pytest.mark.parametrize("num_terms", [0, 1, 7, 8, 20, TERMS, TERMS + 1, 1000, 12_345])
def test_halves_of_halves_are_added_as_numpy_adds_them(rng: np.random.Generator, num_terms: int) -> None:
    terms = rng.standard_normal(num_terms)
    assert pairwise_sum(terms) == np.add.reduce(terms)

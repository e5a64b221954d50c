"""Layers, losses and initialisers against plain NumPy."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dist_relu import nn
from dist_relu.errors import DataError
from tests import twin
from tests.gradients import check_backward, check_fused

LAYERS = [nn.Dense(4), nn.Dense(4, bias=False), nn.ReLU(), nn.Softmax()]
INITIALIZERS = [
    (nn.HeNormal(), 2 / 300),
    (nn.HeUniform(), 2 / 300),
    (nn.GlorotNormal(), 2 / 500),
    (nn.GlorotUniform(), 2 / 500),
]


def built(*layers: nn.Layer, inputs: int = 6) -> nn.Sequential:
    return nn.Sequential(*layers, dtype="float64").build((inputs,)).initialize(seed=1)


def test_dense_works_on_the_last_axis(rng: np.random.Generator) -> None:
    model = nn.Sequential(nn.Dense(4), nn.ReLU(), dtype="float64").build((3, 6)).initialize()
    x, dy = rng.standard_normal((5, 3, 6)), rng.standard_normal((5, 3, 4))
    y, dx = model.forward(x), model.backward(dy)
    gradient = model.params[0].grad.copy()
    flat = nn.Sequential(nn.Dense(4), nn.ReLU(), dtype="float64").build((6,)).initialize()
    assert (flat.forward(x.reshape(15, 6)) == y.reshape(15, 4)).all()
    assert (flat.backward(dy.reshape(15, 4)) == dx.reshape(15, 6)).all()
    assert (flat.params[0].grad == gradient).all()


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_backward_agrees_with_finite_differences(layer: nn.Layer, rng: np.random.Generator) -> None:
    check_backward(built(layer), rng.standard_normal((5, 6)), rng)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fused_layers_give_the_bits_of_single_ones(rng: np.random.Generator, dtype: str) -> None:
    layers = nn.Dense(33), nn.ReLU(), nn.Dense(7), nn.ReLU()
    model = nn.Sequential(*layers, dtype=dtype).build((20,)).initialize()
    check_fused(model, rng.standard_normal((9, 20)).astype(dtype), rng)


def test_backward_leaves_its_argument_alone(rng: np.random.Generator) -> None:
    for layer in LAYERS:
        model = built(layer)
        dy = rng.standard_normal(model.forward(rng.standard_normal((5, 6))).shape)
        before = dy.copy()
        model.backward(dy)
        assert (dy == before).all()


@given(st.integers(1, 20), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_cross_entropy_is_that_of_plain_numpy(num_samples: int, num_classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    z = 30 * rng.standard_normal((num_samples, num_classes))
    labels = rng.integers(0, num_classes, num_samples)
    dz = np.empty_like(z)
    loss, num_correct = nn.CrossEntropy().backward(z, labels, 0.5, dz)
    expected = twin.softmax(z)
    expected[np.arange(num_samples), labels] -= 1
    assert loss == pytest.approx(num_samples * twin.cross_entropy(z, labels), rel=1e-10, abs=1e-10)
    assert num_correct == (z.argmax(axis=1) == labels).sum()
    np.testing.assert_allclose(dz, 0.5 * expected, atol=1e-12)


def test_cross_entropy_of_huge_logits_does_not_overflow() -> None:
    z = np.array([[1e4, -1e4, 0.0]], np.float32)
    dz = np.empty_like(z)
    loss, num_correct = nn.CrossEntropy().backward(z, np.array([1]), 1.0, dz)
    assert (loss, num_correct) == (2e4, 0)
    assert dz.tolist() == [[1, -1, 0]]


@pytest.mark.parametrize(
    ("loss", "targets", "message"),
    [
        (nn.CrossEntropy(), np.array([0, 3]), "Label 3 of sample 1 is outside the classes 0 to 2"),
        (nn.CrossEntropy(), np.array([-1, 0]), "Label -1 of sample 0"),
        (nn.CrossEntropy(), np.array([0.5, 1.0]), "needs class numbers"),
        (nn.MeanSquaredError(), np.zeros((2, 2)), r"needs real targets of shape \(N, 3\)"),
    ],
)
def test_targets_that_do_not_suit_the_loss_are_refused(loss: nn.Loss, targets: twin.Array, message: str) -> None:
    with pytest.raises(DataError, match=message):
        loss.check(targets, (3,))


@pytest.mark.parametrize(("initializer", "variance"), INITIALIZERS, ids=repr)
def test_initial_weights_have_the_variance_of_the_paper(initializer: nn.Initializer, variance: float) -> None:
    weights = initializer.draw((300, 200), 300, 200, np.random.default_rng(0))
    assert weights.mean() == pytest.approx(0, abs=4 * (variance / weights.size) ** 0.5)
    assert weights.var() == pytest.approx(variance, rel=0.03)


def test_thirty_layers_of_relu_keep_their_scale_from_he() -> None:
    layers = [layer for _ in range(30) for layer in (nn.Dense(256), nn.ReLU())]
    model = nn.Sequential(*layers).build((256,)).initialize(seed=0)
    x = np.random.default_rng(0).standard_normal((64, 256), np.float32)
    last = model.activations(x)[-1]
    assert 0.05 < (last**2).mean() < 20


def test_a_summary_counts_parameters_and_bytes() -> None:
    lines = nn.summary(nn.cnn((28, 28, 1), 10).build((784,))).splitlines()
    assert lines[2].split() == ["1", "Conv2d", "(28,", "28,", "32)", "320", "1,280", "100,352"]
    assert lines[-1].split() == ["all", "(10,)", "421,642", "1,686,568"]
    with pytest.raises(ValueError, match="was not built yet"):
        nn.summary(nn.Sequential(nn.Dense(3)))


def test_softmax_rows_are_probabilities(rng: np.random.Generator) -> None:
    z = 100 * rng.standard_normal((4, 6))
    np.testing.assert_allclose(built(nn.Softmax()).forward(z), twin.softmax(z), atol=1e-14)


def test_a_model_describes_itself_and_survives_pickling(rng: np.random.Generator) -> None:
    model = built(nn.Dense(3, init=nn.GlorotUniform()), nn.ReLU())
    assert "Dense(units=3, init=GlorotUniform())" in repr(model)
    x = rng.standard_normal((2, 6))
    assert (pickle.loads(pickle.dumps(model)).forward(x) == model.forward(x)).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (nn.Sequential, "at least one layer"),
        (lambda: nn.Sequential(nn.Dense(3), dtype="float16"), "float32 or float64"),
        (lambda: nn.Dense(0), "at least 1"),
        (lambda: nn.Sequential(nn.ReLU(), nn.Dense(3)).build(()), "Samples must have at least one dimension"),
        (lambda: nn.Sequential(nn.Residual([nn.ReLU(), *[nn.Dense(3)] * 2])).build((3,)), "stands twice"),
        (lambda: nn.Sequential(*[nn.ReLU()] * 2), "stands twice"),
        (lambda: nn.Sequential(nn.ReLU()).sha256(), "no parameters yet"),
    ],
)
def test_models_that_make_no_sense_are_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()

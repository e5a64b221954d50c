"""Initial values: their statistics, and what they are good for."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn, optim
from dist_relu.data.dataset import Split


def draw(rule: nn.Initializer, shape: tuple[int, ...], fan_in: int, fan_out: int) -> np.ndarray:
    return rule.draw(shape, fan_in, fan_out, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("rule", "variance"),
    [
        (nn.HeNormal(), 2 / 300),
        (nn.HeUniform(), 2 / 300),
        (nn.HeNormal(mode="fan_out"), 2 / 200),
        (nn.HeUniform(mode="fan_out"), 2 / 200),
        (nn.HeNormal(nn.gain("leaky_relu", 0.5)), 2 / 1.25 / 300),
        (nn.HeUniform(nn.gain("tanh")), 25 / 9 / 300),
        (nn.GlorotNormal(), 2 / 500),
        (nn.GlorotUniform(), 2 / 500),
        (nn.GlorotNormal(gain=3.0), 9 * 2 / 500),
        (nn.GlorotUniform(gain=3.0), 9 * 2 / 500),
        (nn.Constant(0.5), 0),
        (nn.Constant(), 0),
    ],
    ids=repr,
)
def test_variances_are_those_of_the_papers(rule: nn.Initializer, variance: float) -> None:
    values = draw(rule, (300, 200), 300, 200)
    assert values.shape == (300, 200)
    assert values.var() == pytest.approx(variance, rel=0.03)
    if "Uniform" in repr(rule):
        assert np.abs(values).max() == pytest.approx(sqrt(3 * variance), rel=0.01)


@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (30, 30), (3, 3, 5, 20), (2, 2, 3, 40), (1, 1)])
@pytest.mark.parametrize("gain", [1.0, sqrt(2)])
def test_orthogonal_weights_are_orthogonal(shape: tuple[int, ...], gain: float) -> None:
    matrix = draw(nn.Orthogonal(gain), shape, 1, 1).reshape(-1, shape[-1])
    if matrix.shape[0] < matrix.shape[1]:
        matrix = matrix.T
    np.testing.assert_allclose(matrix.T @ matrix, gain**2 * np.eye(matrix.shape[1]), atol=1e-12)


def test_orthogonal_weights_are_those_of_a_qr_decomposition_with_a_positive_diagonal() -> None:
    q, r = np.linalg.qr(np.random.default_rng(1).standard_normal((70, 50)))
    drawn = nn.Orthogonal().draw((70, 50), 1, 1, np.random.default_rng(1))
    np.testing.assert_allclose(drawn, q * np.sign(np.diag(r)), atol=1e-13)


def test_orthogonal_weights_have_the_same_bits_on_every_processor() -> None:
    model = nn.Sequential(nn.Dense(70, init=nn.Orthogonal()), dtype="float64").build((50,)).initialize(seed=1)
    assert model.sha256().startswith("83c9b6f9f1a2b737")


def test_identity_is_the_identity() -> None:
    np.testing.assert_array_equal(draw(nn.Identity(0.5), (3, 3), 3, 3), 0.5 * np.eye(3))


@pytest.mark.parametrize("rule", [nn.Orthogonal(), nn.Identity()])
def test_matrices_are_not_drawn_for_vectors(rule: nn.Initializer) -> None:
    with pytest.raises(ValueError, match="matrices"):
        draw(rule, (3,), 3, 3)


@pytest.mark.parametrize("make", [lambda: nn.HeNormal(mode="fan"), lambda: nn.gain("swoosh")])  # type: ignore[arg-type]
def test_arguments_that_make_no_sense_are_refused(make: object) -> None:
    with pytest.raises(ValueError, match=r"must be|expected"):
        make()  # type: ignore[operator]


@pytest.mark.parametrize("activation", ["linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"])
@pytest.mark.peer
def test_gains_are_those_of_pytorch(activation: str) -> None:
    torch = pytest.importorskip("torch")
    assert nn.gain(activation) == pytest.approx(torch.nn.init.calculate_gain(activation), rel=1e-15)
    if activation == "leaky_relu":
        assert nn.gain(activation, 0.3) == pytest.approx(torch.nn.init.calculate_gain(activation, 0.3), rel=1e-15)


def test_draws_are_fixed_by_the_seed_and_the_number_of_the_parameter() -> None:
    def model(first: nn.Initializer) -> nn.Sequential:
        layers = nn.Dense(4, init=first), nn.Dense(4, init=nn.Orthogonal())
        return nn.Sequential(*layers).build((4,)).initialize(seed=1)

    one, other = model(nn.HeNormal()), model(nn.Constant())
    np.testing.assert_array_equal(one.params[2].value, other.params[2].value)
    assert model(nn.HeNormal()).sha256() == one.sha256() != other.sha256()


def deep_model(init: nn.Initializer) -> nn.Sequential:
    hidden = [layer for _ in range(30) for layer in (nn.Dense(64, init=init), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Dense(10, init=nn.GlorotNormal()))


def test_thirty_relu_layers_train_from_he_where_glorot_stalls(digits: Split) -> None:
    def loss_from(init: nn.Initializer) -> float:
        optimizer = optim.SGD(0.005, momentum=0.9)
        fitted = coordinator.fit(deep_model(init), digits.train, optimizer, epochs=20, batch_size=50, seed=1)
        return fitted.epochs[-1].loss

    with dr.start(backend="serial") as coordinator:
        assert loss_from(nn.HeNormal()) < 1
        with pytest.warns(dr.TrainingWarning, match="Nothing was learned"):
            assert loss_from(nn.GlorotNormal()) > 2.29


@pytest.mark.parametrize("init", [nn.Orthogonal(), nn.GlorotUniform(0.1), nn.HeNormal(3.0)], ids=repr)
def test_lsuv_gives_every_layer_outputs_of_unit_variance(init: nn.Initializer, digits: Split) -> None:
    model = deep_model(init).build((64,)).initialize(seed=1)
    assert nn.lsuv(model, digits.train.x[:500]) is model
    for layer, outputs in zip(model.layers, model.activations(digits.train.x[:500]), strict=True):
        if isinstance(layer, nn.Dense):
            assert outputs.var() == pytest.approx(1, abs=0.02)


def test_lsuv_needs_parameters_and_outputs_that_vary(digits: Split) -> None:
    with pytest.raises(ValueError, match="no parameters"):
        nn.lsuv(deep_model(nn.HeNormal()), digits.train.x)
    model = nn.Sequential(nn.Dense(3, init=nn.Constant())).build((64,)).initialize()
    with pytest.raises(ValueError, match=r"Layer 0: .* variance 0"):
        nn.lsuv(model, digits.train.x)

"""Sparsity, dead units and the flow of gradients, over any number of workers, beside plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import analysis, nn, optim
from tests import twin
from tests.conftest import small_model


def built(dtype: str = "float64", dead: tuple[int, ...] = (3, 77, 299)) -> nn.Sequential:
    """A model of whose first layer these units are never active."""
    model = small_model(dtype).build((64,)).initialize(seed=1)
    model.views(model.values)[1][list(dead)] = -1000
    return model


def test_statistics_are_those_of_plain_numpy(coordinator: dr.Coordinator, digits: dr.data.Split) -> None:
    model = built()
    a, b, c, d, e, f = model.views(model.values)
    x = digits.train.x.astype(np.float64)
    z1 = x @ a + b
    z2 = np.maximum(z1, 0) @ c + d
    outputs = [z1, np.maximum(z1, 0), z2, np.maximum(z2, 0), np.maximum(z2, 0) @ e + f]
    layers = analysis.activation_statistics(coordinator, model, digits.train.x)
    assert [layer.name for layer in layers] == ["0 Dense", "1 ReLU", "2 Dense", "3 ReLU", "4 Dense"]
    for layer, y in zip(layers, outputs, strict=True):
        assert layer.num_units == y.shape[1]
        assert layer.sparsity == pytest.approx((y == 0).mean(), abs=1e-15)
        assert layer.dead == np.flatnonzero((y == 0).all(axis=0)).tolist()
        assert layer.mean == pytest.approx(y.mean(), rel=1e-12)
        assert layer.variance == pytest.approx(y.var(), rel=1e-12)
    assert {3, 77, 299} <= set(layers[1].dead)
    assert analysis.dead_units(coordinator, model, digits.train.x) == [layer.dead for layer in layers]


@pytest.mark.parametrize("num_samples", [1, 256, 1000])
def test_numbers_do_not_depend_on_the_workers(
    coordinator: dr.Coordinator, digits: dr.data.Split, num_samples: int
) -> None:
    model = built("float32")
    x, y = digits.train.x[:num_samples], digits.train.y[:num_samples]
    with dr.start(backend="serial") as serial:
        activations = analysis.activation_statistics(serial, model, x)
        gradients = analysis.gradient_flow(serial, model, (x, y))
        smaller = analysis.compact(serial, model, x)
    assert analysis.activation_statistics(coordinator, model, x) == activations
    assert analysis.gradient_flow(coordinator, model, (x, y)) == gradients
    ours = analysis.compact(coordinator, model, x)
    assert ours.model.sha256() == smaller.model.sha256()
    assert (ours.removed, ours.num_changed) == (smaller.removed, 0)


@pytest.mark.parametrize("num_samples", [1, 1000])
def test_gradients_through_time_do_not_depend_on_the_workers(coordinator: dr.Coordinator, num_samples: int) -> None:
    data = dr.data.adding(num_samples, steps=12)
    model = nn.Sequential(nn.RNN(20, sequences=True), nn.RNN(10), nn.Dense(1)).build((12, 2)).initialize()
    with dr.start(backend="serial") as serial:
        expected = analysis.gradient_through_time(serial, model, data)
    assert analysis.gradient_through_time(coordinator, model, data) == expected


def test_gradients_flow_as_in_plain_numpy(coordinator: dr.Coordinator, digits: dr.data.Split) -> None:
    model = built()
    x, y = digits.train.x.astype(np.float64), digits.train.y
    params = model.views(model.values)
    reference = twin.Mlp(params)
    hidden = reference.forward(x)
    d_logits = twin.softmax(hidden[-1])
    d_logits[np.arange(len(x)), y] -= 1
    d_hidden_2 = d_logits @ params[4].T
    d_z2 = d_hidden_2 * (hidden[2] > 0)
    d_hidden_1 = d_z2 @ params[2].T
    d_z1 = d_hidden_1 * (hidden[1] > 0)
    d_x = d_z1 @ params[0].T
    flow = analysis.gradient_flow(coordinator, model, (x, y))
    assert flow.loss == pytest.approx(twin.cross_entropy(hidden[-1], y), rel=1e-12)
    assert list(flow.outputs) == ["input", "0 Dense", "1 ReLU", "2 Dense", "3 ReLU", "4 Dense"]
    expected = [d_x, d_z1, d_hidden_1, d_z2, d_hidden_2, d_logits]
    for ours, gradient in zip(flow.outputs.values(), expected, strict=True):
        assert ours.norm == pytest.approx(np.sqrt((gradient**2).sum(axis=1).mean()), rel=1e-10)
        assert ours.mean_absolute == pytest.approx(np.abs(gradient).mean(), rel=1e-10)
        assert ours.variance == pytest.approx(gradient.var(), rel=1e-10)
    of_weights = reference.gradients(x, y)
    in_order = [of_weights[i + 3 * j] for i in range(3) for j in range(2)]
    assert list(flow.weights) == model.names
    for ours, gradient in zip(flow.weights.values(), in_order, strict=True):
        assert ours.norm == pytest.approx(np.linalg.norm(gradient), rel=1e-10)
        assert ours.mean_absolute == pytest.approx(np.abs(gradient).mean(), rel=1e-10)
        assert ours.variance == pytest.approx(gradient.var(), rel=1e-10)


def test_weighted_samples_have_gradients_as_repeated_ones(
    coordinator: dr.Coordinator, digits: dr.data.Split, rng: np.random.Generator
) -> None:
    model, times = built(), rng.integers(0, 3, 600)
    x, y = digits.train.x[:600], digits.train.y[:600]
    repeated = dr.Dataset(np.repeat(x, times, axis=0), np.repeat(y, times))
    weighted, of_all = (
        analysis.gradient_flow(coordinator, model, data, loss=nn.Focal(2.0))
        for data in (dr.Dataset(x, y, weights=times), repeated)
    )
    assert weighted.loss == pytest.approx(of_all.loss, rel=1e-12)
    for name, magnitude in weighted.weights.items():
        assert magnitude.norm == pytest.approx(of_all.weights[name].norm, rel=1e-10)


@pytest.mark.long
def test_weights_that_are_all_the_same_change_nothing_through_time(
    coordinator: dr.Coordinator, rng: np.random.Generator
) -> None:
    model = nn.rnn(4, 1, dtype="float64").build((6, 2)).initialize(seed=1)
    x, y = rng.standard_normal((300, 6, 2)), rng.standard_normal((300, 1))
    plain, weighted = (
        analysis.gradient_through_time(coordinator, model, dr.Dataset(x, y, weights=weights), loss=nn.Huber(0.1))
        for weights in (None, np.full(300, 2.0))
    )
    assert plain == weighted


def test_a_model_without_its_dead_units_computes_the_same_bits(
    coordinator: dr.Coordinator, digits: dr.data.Split
) -> None:
    model = built("float32")
    x = digits.train.x
    dead = analysis.dead_units(coordinator, model, x)
    result = analysis.compact(coordinator, model, x)
    assert result.num_changed == 0
    assert result.removed == {0: sum(unit >= 256 for unit in dead[1]), 2: len(dead[3])}
    assert result.removed[0] >= 1
    assert result.left == {0: sum(unit < 256 for unit in dead[1]), 2: 0}
    assert result.left[0] >= 2
    assert result.model.num_params < model.num_params
    assert (coordinator.forward(result.model, x) == coordinator.forward(model, x)).all()


@pytest.mark.long
def test_courses_of_training_do_not_depend_on_the_workers(coordinator: dr.Coordinator, digits: dr.data.Split) -> None:
    def course(coordinator: dr.Coordinator) -> analysis.Course:
        options: dict[str, Any] = {"epochs": 1, "batch_size": 100, "shards": 4}
        rule = optim.SGD(0.05, momentum=0.9)
        return analysis.watched_course(coordinator, small_model(), digits, rule, watch=dr.Watch(4), **options)

    with dr.start(backend="serial") as serial:
        expected = course(serial)
    assert course(coordinator) == expected
    assert expected.steps == [0, 4, 8, 12]
    assert expected.loss[-1] < expected.loss[0]

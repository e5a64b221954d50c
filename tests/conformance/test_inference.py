"""Evaluation, outputs and ReLU itself, over any number of workers."""

from __future__ import annotations

import numpy as np
import pytest

import dist_relu as dr
from tests import twin
from tests.conftest import small_model

SHAPES = [(), (0,), (1,), (3,), (7, 5), (2, 3, 4), (0, 4), (4, 0), (1000, 33)]


@pytest.mark.parametrize("num_samples", [1, 3, 256, 257, 1000])
def test_evaluation_counts_every_sample_once(
    coordinator: dr.Coordinator, digits: dr.data.Split, num_samples: int
) -> None:
    model = small_model("float64").build((64,)).initialize(seed=1)
    data = dr.Dataset(digits.train.x[:num_samples], digits.train.y[:num_samples])
    outputs = model.forward(data.x.astype(np.float64))
    result = coordinator.evaluate(model, data)
    assert result.num_samples == num_samples
    assert result.accuracy == (outputs.argmax(axis=1) == data.y).sum() / num_samples
    assert result.loss == pytest.approx(twin.cross_entropy(outputs, data.y), rel=1e-12)


def test_outputs_do_not_depend_on_the_workers(coordinator: dr.Coordinator, digits: dr.data.Split) -> None:
    model = small_model().build((64,)).initialize(seed=1)
    with dr.start(backend="serial") as serial:
        expected = serial.forward(model, digits.train.x)
        expected_loss = serial.evaluate(model, digits.train).loss
    assert (coordinator.forward(model, digits.train.x) == expected).all()
    assert coordinator.evaluate(model, digits.train).loss == expected_loss


def test_a_model_that_changes_is_evaluated_as_it_is(coordinator: dr.Coordinator, digits: dr.data.Split) -> None:
    slope = dr.nn.LeakyReLU(0.1)
    model = dr.nn.Sequential(dr.nn.Dense(20), dr.nn.BatchNorm(), slope, dr.nn.Dense(10)).build((64,)).initialize(seed=1)
    data = dr.Dataset(digits.train.x[:700], digits.train.y[:700])
    for change in range(6):
        model.values *= np.float32(0.9)
        if change == 3:
            slope.negative_slope = 0.3
        outputs = model.forward(data.x)
        assert (coordinator.forward(model, data.x[: 300 - change % 2]) == outputs[: 300 - change % 2]).all()
        result = coordinator.evaluate(model, data)
        assert result.accuracy == (outputs.argmax(axis=1) == data.y).sum() / 700
        assert result.loss == pytest.approx(twin.cross_entropy(outputs, data.y), rel=1e-5)


def test_activations_are_gathered_layer_by_layer(coordinator: dr.Coordinator, digits: dr.data.Split) -> None:
    model = small_model("float64").build((64,)).initialize(seed=1)
    hidden = coordinator.activations(model, digits.test.x)
    reference = twin.Mlp(model.views(model.values)).forward(digits.test.x)
    assert [layer.shape[1] for layer in hidden] == [300, 300, 20, 20, 10]
    np.testing.assert_allclose(hidden[1], reference[1], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(hidden[3], reference[2], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(hidden[4], reference[3], rtol=1e-10, atol=1e-12)


def test_no_samples_give_no_outputs(coordinator: dr.Coordinator) -> None:
    model = small_model().build((64,)).initialize()
    assert coordinator.forward(model, np.empty((0, 64))).shape == (0, 10)
    assert [layer.shape for layer in coordinator.activations(model, np.empty((0, 64)))][-1] == (0, 10)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_relu_is_the_plain_function(
    coordinator: dr.Coordinator, rng: np.random.Generator, shape: tuple[int, ...], dtype: str
) -> None:
    x = (3 * rng.standard_normal(shape)).astype(dtype)
    dy = rng.standard_normal(shape).astype(dtype)
    y, dx = coordinator.relu(x), coordinator.relu_backward(dy, x)
    assert y.dtype == dtype
    assert y.shape == dx.shape == shape
    assert (y == np.maximum(x, 0)).all()
    assert (dx == np.where(x > 0, dy, 0)).all()


def test_relu_keeps_nan_and_turns_negative_zero_positive(coordinator: dr.Coordinator) -> None:
    y = coordinator.relu(np.array([np.nan, -np.inf, -0.0, np.inf, -5e-324]))
    assert np.isnan(y[0])
    assert y[1:].tolist() == [0, 0, np.inf, 0]
    assert not np.signbit(y[1:]).any()


def test_relu_takes_arrays_that_are_not_contiguous(coordinator: dr.Coordinator, rng: np.random.Generator) -> None:
    x = rng.standard_normal((8, 6))[::-2, ::3].T
    assert (coordinator.relu(x) == np.maximum(x, 0)).all()


@pytest.mark.parametrize("partitions", [1, 3, 8])
def test_distributed_relu_takes_any_number_of_partitions(
    coordinator: dr.Coordinator, rng: np.random.Generator, partitions: int
) -> None:
    distributed = dr.DistributedReLU(partitions, coordinator)
    x, dy = rng.standard_normal((2, 5, 4))
    assert (distributed.parallel_relu(x) == np.maximum(x, 0)).all()
    assert (distributed.parallel_backward(dy, x) == np.where(x > 0, dy, 0)).all()

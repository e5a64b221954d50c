"""Metrics are scikit-learn's of the same outputs, to the last digit, on any number of workers."""

from __future__ import annotations

import numpy as np
from sklearn import metrics as peer

import dist_relu as dr
from dist_relu import nn
from tests.conftest import small_model


def test_metrics_of_classes_do_not_depend_on_the_workers(coordinator: dr.Coordinator, digits: dr.data.Split) -> None:
    model = small_model().build((64,)).initialize(seed=1)
    data = dr.Dataset(digits.test.x, digits.test.y % 9)  # a class does not occur
    outputs = coordinator.forward(model, data.x)
    found = coordinator.evaluate(model, data, metrics="all").metrics
    y, predicted, labels = data.y, outputs.argmax(axis=1), np.arange(10)
    assert (found["confusion"] == peer.confusion_matrix(y, predicted, labels=labels)).all()
    for average in ("macro", "micro", "weighted"):
        assert found[f"f1_{average}"] == peer.f1_score(y, predicted, average=average, labels=labels, zero_division=0)
    assert found["top_5"] == peer.top_k_accuracy_score(y, outputs, k=5, labels=labels)
    assert found["accuracy"] == coordinator.evaluate(model, data).accuracy
    assert np.isnan(found["roc_auc"])  # as scikit-learn has it for a class that does not occur
    with dr.start(backend="serial") as serial:
        expected = serial.evaluate(model, data, metrics="all").metrics
    np.testing.assert_equal(dict(found), dict(expected))


def test_metrics_of_real_numbers_do_not_depend_on_the_workers(
    coordinator: dr.Coordinator, rng: np.random.Generator
) -> None:
    data = dr.Dataset(rng.standard_normal((1000, 3)), rng.standard_normal((1000, 2)))
    model = nn.mlp([5], 2, "float64").build((3,)).initialize(seed=1)
    outputs = coordinator.forward(model, data.x)
    found = coordinator.evaluate(model, data, metrics="all").metrics
    assert found == {
        "r2": peer.r2_score(data.y, outputs),
        "mae": peer.mean_absolute_error(data.y, outputs),
        "mse": peer.mean_squared_error(data.y, outputs),
        "rmse": peer.root_mean_squared_error(data.y, outputs),
    }

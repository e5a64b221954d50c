"""Metrics by name, and what is said of arguments that make no sense."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as peer

import dist_relu as dr
from dist_relu import metrics, nn


@pytest.fixture
def serial() -> Iterator[dr.Coordinator]:
    with dr.start(backend="serial") as coordinator:
        yield coordinator


@pytest.fixture
def two_classes(rng: np.random.Generator) -> dr.Dataset:
    x = rng.standard_normal((300, 4)).astype(np.float32)
    return dr.Dataset(x, (x.sum(axis=1) + rng.standard_normal(300) > 0).astype(int))


def test_of_two_classes_the_second_one_counts(serial: dr.Coordinator, two_classes: dr.Dataset) -> None:
    model = nn.mlp([8], 2).build((4,)).initialize(seed=1)
    found = serial.evaluate(model, two_classes, metrics=["f1", "precision", "f1_macro", "roc_auc"]).metrics
    outputs = serial.forward(model, two_classes.x)
    y, predicted = two_classes.y, outputs.argmax(axis=1)
    assert found["f1"] == peer.f1_score(y, predicted)
    assert found["precision"] == peer.precision_score(y, predicted)
    assert found["f1_macro"] == peer.f1_score(y, predicted, average="macro")
    # the order of probabilities is that of the logits' differences
    difference = outputs.astype(np.float64) @ [-1, 1]
    assert found["roc_auc"] == pytest.approx(peer.roc_auc_score(y, difference), abs=1e-12)


def test_outputs_of_a_softmax_are_probabilities(serial: dr.Coordinator, two_classes: dr.Dataset) -> None:
    logits = nn.mlp([8], 2, "float64").build((4,)).initialize(seed=1)
    shares = nn.Sequential(*logits.blueprint().layers, nn.Softmax(), dtype="float64").build((4,)).initialize(seed=1)
    shares.values = logits.values
    of_logits, of_shares = (serial.evaluate(model, two_classes, metrics="log_loss") for model in (logits, shares))
    assert of_shares.metrics["log_loss"] == pytest.approx(of_logits.metrics["log_loss"], rel=1e-12)
    assert of_logits.metrics["log_loss"] == pytest.approx(of_logits.loss, rel=1e-12)


def test_labels_that_are_there_or_not_are_measured_as_such(serial: dr.Coordinator, rng: np.random.Generator) -> None:
    x = rng.standard_normal((200, 4))
    data = dr.Dataset(x, (x[:, :3] + rng.standard_normal((200, 3)) > 0).astype(np.float64))
    model = nn.mlp([8], 3, "float64").build((4,)).initialize(seed=1)
    found = serial.evaluate(model, data, loss=nn.BinaryCrossEntropy(), metrics="all").metrics
    outputs = serial.forward(model, x)
    assert found["f1_micro"] == peer.f1_score(data.y, outputs > 0, average="micro")
    assert found["roc_auc"] == pytest.approx(peer.roc_auc_score(data.y, outputs), abs=1e-12)
    assert (found["confusion"] == peer.multilabel_confusion_matrix(data.y, outputs > 0)).all()


def test_a_single_label_is_two_classes(serial: dr.Coordinator, two_classes: dr.Dataset) -> None:
    data = dr.Dataset(two_classes.x, two_classes.y.astype(np.float64))
    model = nn.mlp([8], 1).build((4,)).initialize(seed=1)
    found = serial.evaluate(model, data, loss=nn.BinaryCrossEntropy(), metrics=["f1", "roc_auc", "confusion"]).metrics
    outputs = serial.forward(model, data.x).reshape(-1)
    assert found["f1"] == peer.f1_score(two_classes.y, outputs > 0)
    assert found["roc_auc"] == pytest.approx(peer.roc_auc_score(two_classes.y, outputs), abs=1e-6)
    assert found["confusion"].shape == (2, 2)


def test_weights_of_the_data_count(serial: dr.Coordinator, two_classes: dr.Dataset, rng: np.random.Generator) -> None:
    weights = rng.random(len(two_classes))
    data = dr.Dataset(two_classes.x, two_classes.y, weights=weights)
    model = nn.mlp([8], 2).build((4,)).initialize(seed=1)
    found = serial.evaluate(model, data, metrics=["accuracy", "f1", "confusion"]).metrics
    predicted = serial.forward(model, data.x).argmax(axis=1)
    assert found["f1"] == peer.f1_score(data.y, predicted, sample_weight=data.weights)
    assert (found["confusion"] == peer.confusion_matrix(data.y, predicted, sample_weight=data.weights)).all()


def test_functions_of_ones_own_see_targets_and_outputs(serial: dr.Coordinator, two_classes: dr.Dataset) -> None:
    model = nn.mlp([8], 2).build((4,)).initialize(seed=1)

    def spread(targets: Any, outputs: Any) -> float:
        return float(np.ptp(outputs[targets == 1]))

    found = serial.evaluate(model, two_classes, metrics=["accuracy", spread]).metrics
    assert list(found) == ["accuracy", "spread"]
    assert found["spread"] == np.ptp(serial.forward(model, two_classes.x)[two_classes.y == 1])


def test_classes_are_reported_by_their_names(serial: dr.Coordinator, two_classes: dr.Dataset) -> None:
    data = dr.Dataset(two_classes.x, np.where(two_classes.y, "wet", "dry"))
    model = nn.mlp([8], 2).build((4,)).initialize(seed=1)
    assert list(serial.evaluate(model, data, metrics="report").metrics["report"]) == ["dry", "wet"]


def test_a_name_that_is_none_lists_those_that_are(serial: dr.Coordinator, two_classes: dr.Dataset) -> None:
    model = nn.mlp([8], 2).build((4,)).initialize()
    with pytest.raises(ValueError, match=r"metrics='r2': the targets are classes; expected all, accuracy, precision"):
        serial.evaluate(model, two_classes, metrics=["r2"])
    with pytest.raises(TypeError, match=r"metrics\[0\]=3: expected names, or functions of targets and outputs"):
        serial.evaluate(model, two_classes, metrics=[3])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: metrics.confusion_matrix([0, 1], [0]), "y_true 2 and y_pred 1; expected as many"),
        (lambda: metrics.accuracy_score([0, 1], [0.2, 0.7]), "y_pred has numbers that are not whole"),
        (lambda: metrics.f1_score([0, 1, 2], [0, 1, 1]), 'average="binary" is for two classes. Pass average="macro"'),
        (lambda: metrics.f1_score([0, 2], [0, 2]), "pos_label=1 does not occur; expected one of 0, 2"),
        (lambda: metrics.accuracy_score([], []), "y_true is empty"),
        (lambda: metrics.accuracy_score([0, 1], [0, 1], sample_weight=[1]), r"sample_weight has shape \(1,\)"),
        (lambda: metrics.roc_auc_score([0, 1, 2], np.eye(3)), 'need multi_class="ovr"'),
        (lambda: metrics.roc_auc_score([0, 1], [0.1, np.nan]), r"y_score\[1\] is nan; expected finite numbers"),
        (
            lambda: metrics.roc_auc_score([0, 1, 1], 2 * np.eye(3), multi_class="ovr", labels=[0, 1, 2]),
            "must hold probabilities, whose sum over classes is 1",
        ),
        (
            lambda: metrics.roc_auc_score([0, 1, 1], np.eye(3), multi_class="ovr"),
            "a column for each of 2 classes. Where some of them don't occur in y_true, pass labels",
        ),
        (lambda: metrics.log_loss([0, 1], [-1, 2]), "y_proba goes from -1 to 2; expected probabilities, from 0 to 1"),
        (lambda: metrics.roc_curve(["a", "b"], [0, 1]), "y_true has the labels a, b; which one counts"),
        (lambda: metrics.r2_score([[1.0, 2.0]], [1.0]), "y_true has 2 outputs, but y_pred 1"),
    ],
)
def test_what_makes_no_sense_is_refused(call: Any, says: str) -> None:
    with pytest.raises(dr.DataError, match=says):
        call()


def test_what_has_no_value_is_told_once_and_can_be_said() -> None:
    with pytest.warns(dr.DataWarning, match="Precision has no value for 1 of 2 classes"):
        assert metrics.precision_score([0, 1], [0, 0], average=None).tolist() == [0.5, 0]
    assert np.isnan(metrics.precision_score([0, 1], [0, 0], zero_division=np.nan))
    with pytest.warns(dr.DataWarning, match="but one class"):
        assert np.isnan(metrics.roc_auc_score([1, 1], [0.2, 0.3]))

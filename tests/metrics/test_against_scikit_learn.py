"""Metrics are scikit-learn's, to the last digit, on drawn cases with ties, classes that do not occur, and weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from sklearn import calibration as peer_calibration
from sklearn import metrics as peer

from dist_relu import metrics
from dist_relu.core.arrays import Array
from tests.cases import long


@dataclass(frozen=True)
class Case:
    """Targets and scores of some classes, some of which may not occur; scores are rounded, so that many are equal."""

    seed: int
    y: Array
    scores: Array
    weight: Array | None

    @property
    def labels(self) -> Array:
        return np.arange(self.scores.shape[1])

    @property
    def predicted(self) -> Array:
        return np.asarray(self.scores.argmax(axis=1))

    @property
    def one_hot(self) -> Array:
        return np.asarray(self.y[:, np.newaxis] == self.labels, int)


def draw(seed: int, num_classes: int | None = None) -> Case:
    rng = np.random.default_rng(seed)
    classes = num_classes or int(rng.integers(2, 9))
    size = int(rng.integers(2, 400))
    present = np.arange(classes)
    if num_classes is None and classes > 2 and seed % 3 == 0:
        present = rng.choice(classes, size=classes - 1, replace=False)  # one does not occur
    y = rng.choice(present, size=size)
    scores = rng.dirichlet(np.ones(classes), size)
    if seed % 2:
        scores = np.round(scores * 4) + 1  # ties
        scores /= scores.sum(axis=1, keepdims=True)
    weights = None, rng.integers(0, 4, size), rng.random(size) + 0.01
    weight = weights[seed % 5] if seed % 5 < 3 else None
    if weight is not None and not weight.any():
        weight = None
    return Case(seed, y, scores, weight)


CASES = [
    pytest.param(draw(seed), id=f"case {seed}", marks=() if seed < 12 else pytest.mark.long) for seed in range(100)
]


@pytest.fixture(autouse=True)
def _no_values_are_no_news() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def same(ours: Any, theirs: Any) -> None:
    """The same numbers, bit by bit."""
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs), strict=False)


@pytest.mark.parametrize("case", CASES)
def test_predicted_classes_are_counted_alike(case: Case) -> None:
    y, predicted, weight = case.y, case.predicted, case.weight
    normalize = (None, "true", "pred", "all")[case.seed % 4]
    options: Any = {"labels": case.labels, "sample_weight": weight, "normalize": normalize}
    same(metrics.confusion_matrix(y, predicted, **options), peer.confusion_matrix(y, predicted, **options))
    for average in (None, "macro", "micro", "weighted"):
        options = {
            "average": average,
            "labels": case.labels,
            "sample_weight": weight,
            "zero_division": (0.0, 1.0, np.nan)[case.seed % 3],
            "beta": (0.5, 1.0, 2.0)[case.seed // 3 % 3],
        }
        ours = metrics.precision_recall_fscore_support(y, predicted, **options)
        theirs = peer.precision_recall_fscore_support(y, predicted, **options)
        for one, other in zip(ours, theirs, strict=True):
            same(one, other)
    of_both: list[tuple[Callable[..., Any], Callable[..., Any]]] = [
        (metrics.accuracy_score, peer.accuracy_score),
        (metrics.balanced_accuracy_score, peer.balanced_accuracy_score),
        (metrics.matthews_corrcoef, peer.matthews_corrcoef),
        (metrics.multilabel_confusion_matrix, peer.multilabel_confusion_matrix),
    ]
    for our, their in of_both:
        same(our(y, predicted, sample_weight=weight), their(y, predicted, sample_weight=weight))


@pytest.mark.parametrize("case", CASES)
def test_scores_are_ranked_alike(case: Case) -> None:
    y, scores, weight, labels = case.y, case.scores, case.weight, case.labels
    for column in (0, case.seed % len(labels)):
        options: Any = {"pos_label": labels[column], "sample_weight": weight}
        for ours, theirs in (
            (metrics.roc_curve, peer.roc_curve),
            (metrics.precision_recall_curve, peer.precision_recall_curve),
        ):
            for one, other in zip(
                ours(y, scores[:, column], **options), theirs(y, scores[:, column], **options), strict=True
            ):
                same(one, other)
    if len(labels) == 2:
        for our, their in (
            (metrics.roc_auc_score, peer.roc_auc_score),
            (metrics.average_precision_score, peer.average_precision_score),
        ):
            same(our(y, scores[:, 1], sample_weight=weight), their(y, scores[:, 1], sample_weight=weight))
        for k in (1, 2):
            options = {"k": k, "sample_weight": weight, "labels": labels}
            same(
                metrics.top_k_accuracy_score(y, scores[:, 1], **options),
                peer.top_k_accuracy_score(y, scores[:, 1], **options),
            )
        return
    average = ("macro", "micro", "weighted", None)[case.seed % 4]
    options = {"average": average, "sample_weight": weight, "labels": labels, "multi_class": "ovr"}
    same(metrics.roc_auc_score(y, scores, **options), peer.roc_auc_score(y, scores, **options))
    options = {"average": average, "sample_weight": weight}
    same(
        metrics.average_precision_score(case.one_hot, scores, **options),
        peer.average_precision_score(case.one_hot, scores, **options),
    )
    for average in ("macro", "weighted"):
        if set(y) == set(labels):
            options = {"average": average, "multi_class": "ovo"}
            same(metrics.roc_auc_score(y, scores, **options), peer.roc_auc_score(y, scores, **options))
    for k in (1, 2, 3):
        options = {"k": k, "sample_weight": weight, "labels": labels}
        same(metrics.top_k_accuracy_score(y, scores, **options), peer.top_k_accuracy_score(y, scores, **options))


@pytest.mark.parametrize("case", CASES)
def test_probabilities_are_judged_alike(case: Case) -> None:
    y, scores, weight = case.y, case.scores, case.weight
    of_dtype = scores.astype(("float64", "float32")[case.seed // 2 % 2])
    options: Any = {"sample_weight": weight, "labels": case.labels}
    same(metrics.log_loss(y, of_dtype, **options), peer.log_loss(y, of_dtype, **options))
    same(metrics.brier_score_loss(y, of_dtype, **options), peer.brier_score_loss(y, of_dtype, **options))
    right, sure = (case.predicted == y).astype(int), scores.max(axis=1)
    for strategy in ("uniform", "quantile"):
        ours = metrics.calibration_curve(right, sure, pos_label=1, n_bins=7, strategy=strategy)
        theirs = peer_calibration.calibration_curve(right, sure, pos_label=1, n_bins=7, strategy=strategy)
        for one, other in zip(ours, theirs, strict=True):
            same(one, other)


@pytest.mark.parametrize("seed", range(100))
def test_real_numbers_are_judged_alike(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size, outputs = int(rng.integers(2, 300)), int(rng.integers(2, 5))
    dtype = "float32" if seed % 4 == 1 else "float64"
    y, predicted = (rng.standard_normal((size, outputs)).astype(dtype) for _ in range(2))
    if seed % 3 == 0:
        y[:, 0] = 1.5  # an output without variance
    if seed % 6 == 0:
        predicted[:, 0] = 1.5
    weight = rng.random(size).astype(dtype) if seed % 2 else None
    for multioutput in (("uniform_average", "raw_values", rng.random(outputs))[seed % 3],):
        options: Any = {"sample_weight": weight, "multioutput": multioutput}
        for our, their in (
            (metrics.r2_score, peer.r2_score),
            (metrics.mean_absolute_error, peer.mean_absolute_error),
            (metrics.mean_squared_error, peer.mean_squared_error),
            (metrics.root_mean_squared_error, peer.root_mean_squared_error),
        ):
            same(our(y, predicted, **options), their(y, predicted, **options))
    options = {"sample_weight": weight, "multioutput": "variance_weighted"}
    same(metrics.r2_score(y, predicted, **options), peer.r2_score(y, predicted, **options))


@pytest.mark.parametrize("seed", [*range(6), *long(*range(6, 10))])
def test_several_labels_a_sample_are_counted_alike(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = int(rng.integers(2, 100)), int(rng.integers(2, 6))
    y, predicted = ((rng.random(shape) < 0.4).astype(int) for _ in range(2))
    if seed % 3 == 0:
        y[:, 0] = 0  # a label that does not occur
    scores = np.round(rng.random(shape), 1)
    weight = rng.random(shape[0]) if seed % 2 else None
    same(
        metrics.accuracy_score(y, predicted, sample_weight=weight),
        peer.accuracy_score(y, predicted, sample_weight=weight),
    )
    same(
        metrics.multilabel_confusion_matrix(y, predicted, sample_weight=weight),
        peer.multilabel_confusion_matrix(y, predicted, sample_weight=weight),
    )
    for average in ("macro", "micro", "weighted", "samples", None):
        options: Any = {"average": average, "sample_weight": weight, "zero_division": 0}
        same(metrics.f1_score(y, predicted, **options), peer.f1_score(y, predicted, **options))
        options = {"average": average, "sample_weight": weight}
        same(metrics.roc_auc_score(y, scores, **options), peer.roc_auc_score(y, scores, **options))
        same(metrics.average_precision_score(y, scores, **options), peer.average_precision_score(y, scores, **options))


@pytest.mark.parametrize("names", [["cat", "dog"], ["ant", "bee", "cat"]])
def test_labels_may_be_texts(names: list[str]) -> None:
    rng = np.random.default_rng(0)
    y, predicted = rng.choice(names, 50), rng.choice(names, 50)
    same(metrics.confusion_matrix(y, predicted), peer.confusion_matrix(y, predicted))
    same(metrics.f1_score(y, predicted, average="macro"), peer.f1_score(y, predicted, average="macro"))
    same(
        metrics.f1_score(y, predicted, average=None, labels=names[::-1]),
        peer.f1_score(y, predicted, average=None, labels=names[::-1]),
    )
    if len(names) == 2:
        same(
            metrics.precision_score(y, predicted, pos_label="cat"), peer.precision_score(y, predicted, pos_label="cat")
        )

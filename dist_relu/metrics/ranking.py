"""Metrics of scores: how well they rank samples of a class before all others.

Names, arguments and results are scikit-learn's. Samples of equal score are one point of a curve, whatever their order.
Scores are (N,) for one class, or (N, K) with a column for each.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import combinations
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_choice, check_int
from dist_relu.errors import DataError, DataWarning
from dist_relu.metrics.arguments import (
    check_labels,
    check_scores,
    check_weight,
    coded,
    indicator,
    is_multilabel,
    positive,
    shown_labels,
)
from dist_relu.metrics.averages import Average

_AVERAGES = ("macro", "micro", "weighted", "samples")


class Curve(NamedTuple):
    """True and false positives (T,) when all count as positive whose score is at least a threshold (T,), falling."""

    false: Array
    true: Array
    thresholds: Array


def roc_curve(
    y_true: npt.ArrayLike,
    y_score: npt.ArrayLike,
    *,
    pos_label: Any = None,
    sample_weight: npt.ArrayLike | None = None,
    drop_intermediate: bool = True,
) -> tuple[Array, Array, Array]:
    """False positive rates, true positive rates and thresholds, (T,) each, from (0, 0) to (1, 1).

    drop_intermediate: leave out points on the line between their neighbours.  Fawcett (2006).
    """
    is_positive = positive(y_true, pos_label)
    return _roc(_curve(is_positive, y_score, sample_weight), drop_intermediate=drop_intermediate)


def precision_recall_curve(
    y_true: npt.ArrayLike,
    y_score: npt.ArrayLike,
    *,
    pos_label: Any = None,
    sample_weight: npt.ArrayLike | None = None,
) -> tuple[Array, Array, Array]:
    """Precisions and recalls, (T + 1,), at thresholds (T,) that rise; the last point is precision 1 at recall 0."""
    return _precision_recall(_curve(positive(y_true, pos_label), y_score, sample_weight))


def roc_auc_score(
    y_true: npt.ArrayLike,
    y_score: npt.ArrayLike,
    *,
    average: Average = "macro",
    sample_weight: npt.ArrayLike | None = None,
    multi_class: Literal["raise", "ovr", "ovo"] = "raise",
    labels: npt.ArrayLike | None = None,
) -> Any:
    """The area under the ROC curve: how often a sample of the class has a greater score than another; ties count half.

    y_true: two classes with scores (N,) of the greater one; an indicator (N, K); or several classes, whose scores
    (N, K) must be probabilities.  average: over classes, see `precision_recall_fscore_support`; None for each (K,).
    multi_class: "ovr" takes each class against all others, "ovo" every two against each other: Hand and Till (2001).
    labels: the classes of the columns, where not all of them occur.

    NaN, with a warning, where there is but one class.
    """
    check_choice("multi_class", multi_class, ("raise", "ovr", "ovo"))
    if is_multilabel(y_true):
        return _averaged(_area, indicator("y_true", y_true), y_score, average, sample_weight)
    codes = coded(y_true, y_true)
    scores = check_scores("y_score", y_score, len(codes.true))
    if len(codes.labels) <= 2 and scores.ndim == 1:
        weight = check_weight(sample_weight, len(scores))
        return _area(codes.true == len(codes.labels) - 1, scores, weight)
    if multi_class == "raise":
        raise DataError('Scores of several classes need multi_class="ovr" (each against all) or "ovo" (every two).')
    classes = codes.labels if labels is None else check_labels(labels)
    _check_columns(scores, classes, codes.labels)
    if not np.allclose(1, scores.sum(axis=1)):
        raise DataError(
            "y_score must hold probabilities, whose sum over classes is 1; nn.Softmax makes some of logits."
        )
    one_hot = np.asarray(codes.labels[codes.true][:, np.newaxis] == classes)
    if multi_class == "ovr":
        return _averaged(_area, one_hot, scores, average, sample_weight)
    if average not in ("macro", "weighted") or sample_weight is not None:
        raise DataError('multi_class="ovo" goes with average="macro" or "weighted", and without sample_weight.')
    return _area_of_pairs(one_hot, scores, weighted=average == "weighted")


def average_precision_score(
    y_true: npt.ArrayLike,
    y_score: npt.ArrayLike,
    *,
    average: Average = "macro",
    pos_label: Any = 1,
    sample_weight: npt.ArrayLike | None = None,
) -> Any:
    """The mean of the precisions at all thresholds, weighted by how much each adds to recall; nothing is interpolated.

    y_true, average: as for `roc_auc_score`; of several classes (N,), those that occur are the columns of y_score.
    0, with a warning, where nothing is of the class.
    """
    if is_multilabel(y_true):
        return _averaged(_average_precision, indicator("y_true", y_true), y_score, average, sample_weight)
    codes = coded(y_true, y_true)
    if len(codes.labels) > 2:
        scores = check_scores("y_score", y_score, len(codes.true))
        _check_columns(scores, codes.labels, codes.labels)
        one_hot = codes.true[:, np.newaxis] == np.arange(len(codes.labels))
        return _averaged(_average_precision, one_hot, scores, average, sample_weight)
    if len(codes.labels) == 2 and pos_label not in codes.labels:
        raise DataError(f"pos_label={pos_label!r} does not occur; expected one of {shown_labels(codes.labels)}.")
    is_positive = positive(y_true, pos_label)
    scores = check_scores("y_score", y_score, len(is_positive))
    return _average_precision(is_positive, scores, check_weight(sample_weight, len(is_positive)))


def top_k_accuracy_score(
    y_true: npt.ArrayLike,
    y_score: npt.ArrayLike,
    *,
    k: int = 2,
    normalize: bool = True,
    sample_weight: npt.ArrayLike | None = None,
    labels: npt.ArrayLike | None = None,
) -> float:
    """The share of samples whose class has one of the k greatest scores (N, K); of equal ones the later is greater.

    Of two classes, y_score may be (N,), that of the greater one, which is predicted above 1/2 where all are from 0 to
    1, and otherwise above 0.
    normalize: False for their number, or the sum of their weights.  labels: as for `roc_auc_score`.
    """
    k = check_int("k", k)
    codes = coded(y_true, y_true)
    scores = check_scores("y_score", y_score, len(codes.true))
    classes = codes.labels if labels is None else check_labels(labels)
    num_classes = 2 if scores.ndim == 1 else scores.shape[1]
    if k >= num_classes:
        warnings.warn(
            f"k={k}: of {num_classes} classes every sample's is among the first {k}.", DataWarning, stacklevel=2
        )
    if scores.ndim == 1:
        threshold = 0.5 if scores.min() >= 0 and scores.max() <= 1 else 0
        right = (scores > threshold) == (codes.labels[codes.true] == classes[-1])
        right |= k > 1
    else:
        _check_columns(scores, classes, codes.labels)
        targets = np.searchsorted(classes, codes.labels)[codes.true][:, np.newaxis]
        own = np.take_along_axis(scores, targets, axis=1)
        ahead = (scores > own) | ((scores == own) & (np.arange(num_classes) > targets))
        right = np.count_nonzero(ahead, axis=1) < k
    weight = check_weight(sample_weight, len(right))
    if normalize:
        return float(np.average(right, weights=weight))
    return float(right.sum() if weight is None else np.dot(right, weight))


def _curve(is_positive: Array, y_score: npt.ArrayLike, sample_weight: npt.ArrayLike | None) -> Curve:
    """Count along falling scores; samples without weight don't count."""
    scores = check_scores("y_score", y_score, len(is_positive))
    if scores.ndim != 1:
        raise DataError(f"y_score has shape {scores.shape}; expected the scores of one class, (N,).")
    weight = check_weight(sample_weight, len(is_positive))
    if weight is not None:
        counts = weight != 0
        is_positive, scores, weight = is_positive[counts], scores[counts], weight[counts].astype(np.float64)
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], is_positive[order].astype(np.float64)
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # of each run of equal ones
    if weight is None:
        true = np.cumsum(hits)[last]
        return Curve(1 + last - true, true, scores[last])
    weight = weight[order]
    return Curve(np.cumsum((1 - hits) * weight)[last], np.cumsum(hits * weight)[last], scores[last])


def _roc(curve: Curve, *, drop_intermediate: bool) -> tuple[Array, Array, Array]:
    false, true, thresholds = curve
    if drop_intermediate and len(false) > 2:
        corner = np.concatenate([[True], (np.diff(false, 2) != 0) | (np.diff(true, 2) != 0), [True]])
        false, true, thresholds = false[corner], true[corner], thresholds[corner]
    return (
        _rates(np.append(0.0, false), "negative"),
        _rates(np.append(0.0, true), "positive"),
        np.append(np.inf, thresholds.astype(np.float64)),
    )


def _rates(counts: Array, kind: str) -> Array:
    if counts[-1] > 0:
        return np.asarray(counts / counts[-1])
    warnings.warn(f"There are no {kind} samples, so that their rate is NaN.", DataWarning, stacklevel=4)
    return np.full(counts.shape, np.nan)


def _precision_recall(curve: Curve) -> tuple[Array, Array, Array]:
    false, true, thresholds = curve
    both = true + false
    precision = np.where(both != 0, true / np.where(both != 0, both, 1), 0.0)
    if true[-1] > 0:
        recall = true / true[-1]
    else:
        warnings.warn("There are no positive samples, so that recall is taken as 1.", DataWarning, stacklevel=4)
        recall = np.ones_like(true)
    return np.append(precision[::-1], 1.0), np.append(recall[::-1], 0.0), thresholds[::-1]


def _area(is_positive: Array, scores: Array, weight: Array | None) -> float:
    if is_positive.all() or not is_positive.any():
        warnings.warn("There is but one class, so that the area under the ROC curve is NaN.", DataWarning, stacklevel=4)
        return float("nan")
    false, true, _ = _roc(_curve(is_positive, scores, weight), drop_intermediate=True)
    return float(np.trapezoid(true, false))


def _average_precision(is_positive: Array, scores: Array, weight: Array | None) -> float:
    precision, recall, _ = _precision_recall(_curve(is_positive, scores, weight))
    return float(max(0.0, -np.sum(np.diff(recall) * precision[:-1])))


def _averaged(
    metric: Callable[[Array, Array, Array | None], float],
    is_positive: Array,
    y_score: npt.ArrayLike,
    average: Average,
    sample_weight: npt.ArrayLike | None,
) -> Any:
    """Average a metric of one class over those of an indicator (N, K), or over its samples."""
    if average is not None:
        check_choice("average", average, _AVERAGES)
    scores = check_scores("y_score", y_score, len(is_positive))
    if scores.shape != is_positive.shape:
        raise DataError(f"y_score has shape {scores.shape}; expected {is_positive.shape}, a column for each class.")
    weight = check_weight(sample_weight, len(is_positive))
    over: Array | None = None
    if average == "micro":
        weight = None if weight is None else np.repeat(weight, is_positive.shape[1])
        is_positive, scores = is_positive.reshape(-1, 1), scores.reshape(-1, 1)
    elif average == "samples":
        over, weight = weight, None
        is_positive, scores = is_positive.T, scores.T
    elif average == "weighted":
        over = (is_positive if weight is None else is_positive * weight[:, np.newaxis]).sum(axis=0)
        if not over.any():
            return 0.0
    values = np.array([metric(is_positive[:, i], scores[:, i], weight) for i in range(is_positive.shape[1])])
    if average is None:
        return values
    if over is not None:
        values[over == 0] = 0
    return float(np.average(values, weights=over))


def _area_of_pairs(one_hot: Array, scores: Array, *, weighted: bool) -> float:
    areas, shares = [], []
    for first, second in combinations(np.flatnonzero(one_hot.any(axis=0)), 2):
        either = one_hot[:, first] | one_hot[:, second]
        shares.append(np.average(either))
        of_both = [_area(one_hot[either, one], scores[either, one], None) for one in (first, second)]
        areas.append(sum(of_both) / 2)
    return float(np.average(areas, weights=shares if weighted else None))


def _check_columns(scores: Array, classes: Array, present: Array) -> None:
    """Raise `DataError` unless there is a column for every class, and a class for every label."""
    if scores.ndim != 2 or scores.shape[1] != len(classes):
        raise DataError(
            f"y_score has shape {scores.shape}; expected a column for each of {len(classes)} classes. Where some of "
            "them don't occur in y_true, pass labels."
        )
    unknown = np.setdiff1d(present, classes)
    if len(unknown):
        raise DataError(f"y_true has the label {unknown[0]}, which is not among labels={shown_labels(classes)}.")

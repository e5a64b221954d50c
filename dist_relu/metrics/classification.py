"""Metrics of predicted classes: all of them functions of counts, so that they are exact.

Names, arguments and results are scikit-learn's. Labels are whole numbers or texts (N,), or for several labels a sample
indicators (N, K) of 0 and 1. Sums run over samples in their order, in int64 or float64.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_choice, check_not_negative
from dist_relu.errors import DataError
from dist_relu.metrics.arguments import (
    check_same_length,
    check_weight,
    coded,
    indicator,
    is_multilabel,
    shown_labels,
)
from dist_relu.metrics.averages import Average, ZeroDivision, divide, mean

_AVERAGES = ("binary", "micro", "macro", "weighted", "samples")


def accuracy_score(
    y_true: npt.ArrayLike,
    y_pred: npt.ArrayLike,
    *,
    normalize: bool = True,
    sample_weight: npt.ArrayLike | None = None,
) -> float:
    """The share of samples that were predicted right; of several labels a sample, all of them must be right.

    normalize: False for their number, or the sum of their weights.
    """
    if is_multilabel(y_true):
        true, predicted = _indicators(y_true, y_pred)
        right = (true == predicted).all(axis=1)
    else:
        codes = coded(y_true, y_pred)
        right = codes.true == codes.predicted
    weight = check_weight(sample_weight, len(right))
    if normalize:
        return float(np.average(right, weights=weight))
    return float(right.sum() if weight is None else np.dot(right, weight))


def confusion_matrix(
    y_true: npt.ArrayLike,
    y_pred: npt.ArrayLike,
    *,
    labels: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    normalize: Literal["true", "pred", "all"] | None = None,
) -> Array:
    """How many samples of class i were taken for class j, (K, K); int64, or float64 with weights that are no integers.

    labels: the classes of rows and columns, by default those that occur, in their order; samples of others don't
    count.  normalize: by the sum of a row, of a column, or of all.
    """
    codes = coded(y_true, y_pred)
    weight = check_weight(sample_weight, len(codes.true))
    true, predicted, size = codes.true, codes.predicted, len(codes.labels)
    if labels is not None:
        wanted = np.asarray(labels)
        place = np.full(size, -1)
        for row, label in enumerate(wanted):
            place[codes.labels == label] = row
        true, predicted, size = place[true], place[predicted], len(wanted)
        if not (true >= 0).any():
            raise DataError(f"labels={shown_labels(wanted)}: none of them occurs in y_true.")
        counts = (true >= 0) & (predicted >= 0)
        true, predicted = true[counts], predicted[counts]
        weight = None if weight is None else weight[counts]
    sums = np.bincount(true * size + predicted, weights=weight, minlength=size * size)
    whole = weight is None or weight.dtype.kind == "i"
    matrix = (sums.astype(np.int64) if whole else sums).reshape(size, size)
    if normalize is None:
        return matrix
    axis = {"true": 1, "pred": 0, "all": None}[check_choice("normalize", normalize, ("true", "pred", "all"))]
    total = matrix.sum(axis=axis, keepdims=True)
    return np.asarray(np.where(total == 0, 0.0, matrix / np.where(total == 0, 1, total)))


def multilabel_confusion_matrix(
    y_true: npt.ArrayLike,
    y_pred: npt.ArrayLike,
    *,
    sample_weight: npt.ArrayLike | None = None,
    labels: npt.ArrayLike | None = None,
) -> Array:
    """For each class the counts [[true negatives, false positives], [false negatives, true positives]], (K, 2, 2)."""
    hits, predicted, true, total = _sums(y_true, y_pred, labels, sample_weight, by_sample=False)
    wrongly, missed = predicted - hits, true - hits
    parts = np.stack([total - hits - wrongly - missed, wrongly, missed, hits])
    return parts.T.reshape(-1, 2, 2)


def precision_recall_fscore_support(
    y_true: npt.ArrayLike,
    y_pred: npt.ArrayLike,
    *,
    beta: float = 1.0,
    labels: npt.ArrayLike | None = None,
    pos_label: Any = 1,
    average: Average = None,
    sample_weight: npt.ArrayLike | None = None,
    zero_division: ZeroDivision = "warn",
) -> tuple[Any, Any, Any, Any]:
    """Precision, recall, their F-score, and the number of samples, for each class (K,), or the average of all.

    Precision is the share of right ones among those that were taken for the class, recall among those that are of it;
    the F-score is (1 + β²) / (β²/recall + 1/precision).  beta: how much more recall counts.
    average: None for each class by itself, "macro" for their mean, "weighted" for that weighted by their samples,
    "micro" from the sums of their counts, "samples" for the mean over samples with several labels, "binary" for class
    `pos_label` of two.  With an average there is no number of samples, but None.
    zero_division: the value where nothing was predicted or nothing is there: 0, 1 or NaN, which averages leave out;
    "warn" is 0 with a warning.
    """
    beta = check_not_negative("beta", beta)
    if average is not None:
        check_choice("average", average, _AVERAGES)
    if average == "binary":
        labels = [_of_two(y_true, y_pred, pos_label)]
    hits, predicted, true, _ = _sums(y_true, y_pred, labels, sample_weight, by_sample=average == "samples")
    predicted, true = hits + (predicted - hits), hits + (true - hits)  # what rounding makes of them with weights
    if average == "micro":
        hits, predicted, true = (np.atleast_1d(counts.sum()) for counts in (hits, predicted, true))
    square = beta**2
    precision = divide(hits, predicted, zero_division, "Precision:no predicted samples")
    recall = divide(hits, true, zero_division, "Recall:no samples")
    both = square * true.astype(np.float64) + predicted.astype(np.float64)
    score = precision
    if beta > 0:
        score = divide(
            (1 + square) * hits.astype(np.float64), both, zero_division, "F-score:no samples, predicted or true"
        )
    if average is None:
        return precision, recall, score, true
    weights = {"weighted": true, "samples": sample_weight}.get(average)
    return mean(precision, weights), mean(recall, weights), mean(score, weights), None


def precision_score(
    y_true: npt.ArrayLike,
    y_pred: npt.ArrayLike,
    *,
    labels: npt.ArrayLike | None = None,
    pos_label: Any = 1,
    average: Average = "binary",
    sample_weight: npt.ArrayLike | None = None,
    zero_division: ZeroDivision = "warn",
) -> Any:
    """The share of right ones among those taken for a class; see `precision_recall_fscore_support`."""
    return _one(0, y_true, y_pred, 1.0, labels, pos_label, average, sample_weight, zero_division)


def recall_score(
    y_true: npt.ArrayLike,
    y_pred: npt.ArrayLike,
    *,
    labels: npt.ArrayLike | None = None,
    pos_label: Any = 1,
    average: Average = "binary",
    sample_weight: npt.ArrayLike | None = None,
    zero_division: ZeroDivision = "warn",
) -> Any:
    """The share of those of a class that were found; see `precision_recall_fscore_support`."""
    return _one(1, y_true, y_pred, 1.0, labels, pos_label, average, sample_weight, zero_division)


def f1_score(
    y_true: npt.ArrayLike,
    y_pred: npt.ArrayLike,
    *,
    labels: npt.ArrayLike | None = None,
    pos_label: Any = 1,
    average: Average = "binary",
    sample_weight: npt.ArrayLike | None = None,
    zero_division: ZeroDivision = "warn",
) -> Any:
    """The harmonic mean of precision and recall; see `precision_recall_fscore_support`."""
    return _one(2, y_true, y_pred, 1.0, labels, pos_label, average, sample_weight, zero_division)


def fbeta_score(
    y_true: npt.ArrayLike,
    y_pred: npt.ArrayLike,
    *,
    beta: float,
    labels: npt.ArrayLike | None = None,
    pos_label: Any = 1,
    average: Average = "binary",
    sample_weight: npt.ArrayLike | None = None,
    zero_division: ZeroDivision = "warn",
) -> Any:
    """The F-score in which recall counts β times as much as precision; see `precision_recall_fscore_support`."""
    return _one(2, y_true, y_pred, beta, labels, pos_label, average, sample_weight, zero_division)


def balanced_accuracy_score(
    y_true: npt.ArrayLike, y_pred: npt.ArrayLike, *, sample_weight: npt.ArrayLike | None = None
) -> float:
    """The mean of the recalls of all classes that occur in y_true."""
    matrix = confusion_matrix(y_true, y_pred, sample_weight=sample_weight)
    totals = matrix.sum(axis=1)
    return float((np.diagonal(matrix)[totals != 0] / totals[totals != 0]).mean())


def matthews_corrcoef(
    y_true: npt.ArrayLike, y_pred: npt.ArrayLike, *, sample_weight: npt.ArrayLike | None = None
) -> float:
    """The correlation of true and predicted classes, from -1 to 1; 0 where either of them is always the same.

    Gorodkin (2004), "Comparing two K-category assignments by a K-category correlation coefficient".
    """
    matrix = confusion_matrix(y_true, y_pred, sample_weight=sample_weight)
    true, predicted = matrix.sum(axis=1, dtype=np.float64), matrix.sum(axis=0, dtype=np.float64)
    right, total = np.trace(matrix, dtype=np.float64), predicted.sum()
    variances = (total**2 - np.dot(predicted, predicted)) * (total**2 - np.dot(true, true))
    return float((right * total - np.dot(true, predicted)) / np.sqrt(variances)) if variances else 0.0


_Sums = tuple[Array, Array, Array, Any]
"""For each class, or each sample: right ones, those predicted, those true, (K,); and of how many in all."""


def _sums(
    y_true: npt.ArrayLike,
    y_pred: npt.ArrayLike,
    labels: npt.ArrayLike | None,
    sample_weight: npt.ArrayLike | None,
    *,
    by_sample: bool,
) -> _Sums:
    if is_multilabel(y_true):
        return _sums_of_indicators(y_true, y_pred, labels, sample_weight, by_sample=by_sample)
    if by_sample:
        raise DataError('average="samples" is for several labels a sample: indicators (N, K) of 0 and 1.')
    codes = coded(y_true, y_pred)
    weight = check_weight(sample_weight, len(codes.true))
    size, right = len(codes.labels), codes.true == codes.predicted
    sums = [
        np.bincount(classes, weights=weights, minlength=size)
        for classes, weights in (
            (codes.true[right], None if weight is None else weight[right]),
            (codes.predicted, weight),
            (codes.true, weight),
        )
    ]
    if labels is not None:
        wanted = np.asarray(labels)
        at = np.searchsorted(codes.labels, wanted)
        known = codes.labels[np.minimum(at, size - 1)] == wanted
        sums = [np.where(known, counts[np.minimum(at, size - 1)], 0) for counts in sums]
    hits, of_predicted, of_true = sums
    return hits, of_predicted, of_true, len(right) if weight is None else weight.sum()


def _sums_of_indicators(
    y_true: npt.ArrayLike,
    y_pred: npt.ArrayLike,
    labels: npt.ArrayLike | None,
    sample_weight: npt.ArrayLike | None,
    *,
    by_sample: bool,
) -> _Sums:
    true, predicted = _indicators(y_true, y_pred)
    weight = check_weight(sample_weight, len(true))
    if labels is not None:
        columns = np.asarray(labels)
        if columns.dtype.kind not in "iu" or columns.min() < 0 or columns.max() >= true.shape[1]:
            raise DataError(f"labels={shown_labels(columns)}: expected numbers of columns, 0 to {true.shape[1] - 1}.")
        true, predicted = true[:, columns], predicted[:, columns]
    parts = true & predicted, predicted, true
    if by_sample:
        factor: Any = 1 if weight is None else weight
        hits, of_predicted, of_true = (factor * part.sum(axis=1) for part in parts)
        return hits, of_predicted, of_true, factor * true.shape[1]
    if weight is None:
        hits, of_predicted, of_true = (part.sum(axis=0) for part in parts)
        return hits, of_predicted, of_true, len(true)
    rows, columns = np.nonzero(np.ones_like(true))
    hits, of_predicted, of_true = (
        np.bincount(columns[part.ravel()], weights=weight[rows[part.ravel()]], minlength=true.shape[1])
        for part in parts
    )
    return hits, of_predicted, of_true, weight.sum()


def _one(
    number: int,
    y_true: npt.ArrayLike,
    y_pred: npt.ArrayLike,
    beta: float,
    labels: npt.ArrayLike | None,
    pos_label: Any,
    average: Average,
    sample_weight: npt.ArrayLike | None,
    zero_division: ZeroDivision,
) -> Any:
    return precision_recall_fscore_support(
        y_true,
        y_pred,
        beta=beta,
        labels=labels,
        pos_label=pos_label,
        average=average,
        sample_weight=sample_weight,
        zero_division=zero_division,
    )[number]


def _indicators(y_true: npt.ArrayLike, y_pred: npt.ArrayLike) -> tuple[Array, Array]:
    true, predicted = indicator("y_true", y_true), indicator("y_pred", y_pred)
    check_same_length(y_true=true, y_pred=predicted)
    if true.shape != predicted.shape:
        raise DataError(f"y_true has shape {true.shape}, but y_pred {predicted.shape}; expected the same.")
    return true, predicted


def _of_two(y_true: npt.ArrayLike, y_pred: npt.ArrayLike, pos_label: Any) -> Any:
    """The label that counts where there are two."""
    present = range(3) if is_multilabel(y_true) else coded(y_true, y_pred).labels
    if len(present) > 2:
        raise DataError(
            'average="binary" is for two classes. Pass average="macro", "micro", "weighted", or None for each class.'
        )
    if len(present) == 2 and pos_label not in present:
        raise DataError(f"pos_label={pos_label!r} does not occur; expected one of {shown_labels(present)}.")
    return pos_label

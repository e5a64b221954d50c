"""Metrics of probabilities: whether what happens with probability p happens in a share p of cases.

Names, arguments and results are scikit-learn's, but for `expected_calibration_error`, which it has not. Probabilities
are (N,) of the greater one of two classes, or (N, K); what is computed of float32 is computed in float32.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_choice, check_int
from dist_relu.errors import DataError
from dist_relu.metrics.arguments import check_labels, check_probabilities, check_weight, coded, positive


def log_loss(
    y_true: npt.ArrayLike,
    y_proba: npt.ArrayLike,
    *,
    normalize: bool = True,
    sample_weight: npt.ArrayLike | None = None,
    labels: npt.ArrayLike | None = None,
) -> float:
    """The mean of -log p of the class of each sample, with p kept a rounding error away from 0 and 1.

    normalize: False for the sum.  labels: the classes of the columns, where not all of them occur.
    """
    one_hot, probabilities = _columns(y_true, y_proba, labels)
    epsilon = np.finfo(probabilities.dtype).eps
    clipped = np.clip(probabilities, epsilon, 1 - epsilon)
    losses = -np.sum(np.where(one_hot, np.log(clipped), 0), axis=1)
    weight = check_weight(sample_weight, len(losses))
    if normalize:
        return float(np.average(losses, weights=weight))
    return float(np.sum(losses) if weight is None else np.dot(losses, weight))


def brier_score_loss(
    y_true: npt.ArrayLike,
    y_proba: npt.ArrayLike,
    *,
    sample_weight: npt.ArrayLike | None = None,
    pos_label: Any = None,
    labels: npt.ArrayLike | None = None,
    scale_by_half: bool | Literal["auto"] = "auto",
) -> float:
    """The mean squared difference between the probabilities and what was the case.  Brier (1950).

    scale_by_half: from 0 to 1 rather than to 2; "auto" does so for two classes.
    """
    if pos_label is not None:
        y_true = positive(y_true, pos_label).astype(np.int64)
    one_hot, probabilities = _columns(y_true, y_proba, labels)
    squares = np.sum((one_hot.astype(probabilities.dtype) - probabilities) ** 2, axis=1)
    score = np.average(squares, weights=check_weight(sample_weight, len(squares)))
    if scale_by_half == "auto":
        scale_by_half = probabilities.shape[1] < 3
    return float(score * 0.5 if scale_by_half else score)


def calibration_curve(
    y_true: npt.ArrayLike,
    y_prob: npt.ArrayLike,
    *,
    pos_label: Any = None,
    n_bins: int = 5,
    strategy: Literal["uniform", "quantile"] = "uniform",
) -> tuple[Array, Array]:
    """The share that was true and the mean probability, in each bin of probabilities that holds any samples.

    strategy: bins of equal width, or of as many samples each.  DeGroot and Fienberg (1983).
    """
    is_positive, probabilities = _of_one_class(y_true, y_prob, pos_label)
    true, expected, counts = _binned(is_positive, probabilities, n_bins, strategy)
    filled = counts != 0
    return true[filled] / counts[filled], expected[filled] / counts[filled]


def expected_calibration_error(
    y_true: npt.ArrayLike,
    y_prob: npt.ArrayLike,
    *,
    pos_label: Any = None,
    n_bins: int = 10,
    strategy: Literal["uniform", "quantile"] = "uniform",
) -> float:
    """How far the share that was true is from the mean probability, over the bins of `calibration_curve`, by samples.

    Of several classes, pass whether predictions were right, and with which probability: Guo et al. (2017), "On
    calibration of modern neural networks", equation 3.
    """
    is_positive, probabilities = _of_one_class(y_true, y_prob, pos_label)
    true, expected, _ = _binned(is_positive, probabilities, n_bins, strategy)
    return float(np.abs(true - expected).sum() / len(probabilities))


def _of_one_class(y_true: npt.ArrayLike, y_prob: npt.ArrayLike, pos_label: Any) -> tuple[Array, Array]:
    is_positive = positive(y_true, pos_label)
    probabilities = check_probabilities("y_prob", y_prob, len(is_positive))
    if probabilities.ndim != 1:
        raise DataError(f"y_prob has shape {probabilities.shape}; expected the probabilities of one class, (N,).")
    return is_positive, probabilities


def _binned(
    is_positive: Array, probabilities: Array, n_bins: int, strategy: Literal["uniform", "quantile"]
) -> tuple[Array, Array, Array]:
    """For each bin the number of positive samples, the sum of their probabilities, and the number of samples."""
    n_bins = check_int("n_bins", n_bins)
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    if check_choice("strategy", strategy, ("uniform", "quantile")) == "quantile":
        edges = np.percentile(probabilities, edges * 100)
    bins = np.searchsorted(edges[1:-1], probabilities)
    return (
        np.bincount(bins, weights=is_positive, minlength=n_bins),
        np.bincount(bins, weights=probabilities, minlength=n_bins),
        np.bincount(bins, minlength=n_bins),
    )


def _columns(y_true: npt.ArrayLike, y_proba: npt.ArrayLike, labels: npt.ArrayLike | None) -> tuple[Array, Array]:
    """Which class each sample is of, and the probabilities of all, (N, K) each."""
    codes = coded(y_true, y_true)
    probabilities = check_probabilities("y_proba", y_proba, len(codes.true))
    if probabilities.ndim == 1:
        probabilities = np.stack([1 - probabilities, probabilities], axis=1)
    classes = codes.labels if labels is None else check_labels(labels)
    if len(classes) != probabilities.shape[1]:
        raise DataError(
            f"y_proba is of {probabilities.shape[1]} classes, but y_true has {len(classes)}; expected as many. Where "
            "some of them don't occur in y_true, pass labels."
        )
    if len(np.setdiff1d(codes.labels, classes)):
        raise DataError(f"y_true has labels that are not among labels={classes.tolist()}.")
    return np.asarray(codes.labels[codes.true][:, np.newaxis] == classes), probabilities

"""Metrics of real numbers, (N,) or (N, K).  Names, arguments and results are scikit-learn's.

What is computed of float32 is computed in float32, integers become float64.
"""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dist_relu.core.array_checks import check_finite, check_numbers
from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_choice
from dist_relu.errors import DataError, DataWarning
from dist_relu.metrics.arguments import check_same_length, check_some, check_weight

MultiOutput = Literal["raw_values", "uniform_average", "variance_weighted"] | npt.ArrayLike
"""What becomes of K outputs: each by itself (K,), their mean, or their mean with weights (K,)."""


def mean_absolute_error(
    y_true: npt.ArrayLike,
    y_pred: npt.ArrayLike,
    *,
    sample_weight: npt.ArrayLike | None = None,
    multioutput: MultiOutput = "uniform_average",
) -> Any:
    """The mean of |prediction - target|."""
    true, predicted, weight = _numbers(y_true, y_pred, sample_weight)
    return _over_outputs(np.average(np.abs(predicted - true), axis=0, weights=weight), multioutput)


def mean_squared_error(
    y_true: npt.ArrayLike,
    y_pred: npt.ArrayLike,
    *,
    sample_weight: npt.ArrayLike | None = None,
    multioutput: MultiOutput = "uniform_average",
) -> Any:
    """The mean of (prediction - target)²."""
    return _over_outputs(_squared_errors(y_true, y_pred, sample_weight), multioutput)


def root_mean_squared_error(
    y_true: npt.ArrayLike,
    y_pred: npt.ArrayLike,
    *,
    sample_weight: npt.ArrayLike | None = None,
    multioutput: MultiOutput = "uniform_average",
) -> Any:
    """The root of the mean squared error of each output."""
    return _over_outputs(np.sqrt(_squared_errors(y_true, y_pred, sample_weight)), multioutput)


def r2_score(
    y_true: npt.ArrayLike,
    y_pred: npt.ArrayLike,
    *,
    sample_weight: npt.ArrayLike | None = None,
    multioutput: MultiOutput = "uniform_average",
    force_finite: bool = True,
) -> Any:
    """The coefficient of determination: 1 less the squared error over that of the mean of the targets.

    1 is perfect, 0 as good as the mean.  force_finite: of targets that are all the same, 1 where the predictions are,
    too, and otherwise 0, instead of NaN and minus infinity.  multioutput: "variance_weighted" by the targets' variance.
    NaN, with a warning, of less than two samples.
    """
    true, predicted, weight = _numbers(y_true, y_pred, sample_weight)
    if len(true) < 2:
        warnings.warn("R² needs two samples or more; of one it is NaN.", DataWarning, stacklevel=2)
        return float("nan")
    factor: Any = 1.0 if weight is None else weight[:, np.newaxis]
    errors = np.sum(factor * (true - predicted) ** 2, axis=0)
    spread = np.sum(factor * (true - np.average(true, axis=0, weights=weight)) ** 2, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = 1 - errors / spread
    if force_finite:
        scores[spread == 0] = np.where(errors[spread == 0] == 0, 1.0, 0.0)
    if isinstance(multioutput, str) and multioutput == "variance_weighted":
        return float(np.average(scores, weights=spread if spread.any() else None))
    return _over_outputs(scores, multioutput)


def _squared_errors(y_true: npt.ArrayLike, y_pred: npt.ArrayLike, sample_weight: npt.ArrayLike | None) -> Array:
    true, predicted, weight = _numbers(y_true, y_pred, sample_weight)
    return np.asarray(np.average((true - predicted) ** 2, axis=0, weights=weight))


def _numbers(
    y_true: npt.ArrayLike, y_pred: npt.ArrayLike, sample_weight: npt.ArrayLike | None
) -> tuple[Array, Array, Array | None]:
    """Targets and predictions (N, K) of one dtype, and weights."""
    true, predicted = check_numbers("y_true", y_true), check_numbers("y_pred", y_pred)
    check_finite("y_true", true)
    check_finite("y_pred", predicted)
    if true.ndim not in (1, 2) or predicted.ndim not in (1, 2):
        raise DataError(f"y_true has shape {true.shape} and y_pred {predicted.shape}; expected (N,) or (N, outputs).")
    check_same_length(y_true=true, y_pred=predicted)
    check_some("y_true", true)
    true, predicted = true.reshape(len(true), -1), predicted.reshape(len(true), -1)
    if true.shape != predicted.shape:
        raise DataError(f"y_true has {true.shape[1]} outputs, but y_pred {predicted.shape[1]}; expected as many.")
    weight = check_weight(sample_weight, len(true))
    floats = [array.dtype for array in (true, predicted, weight) if array is not None and array.dtype.kind == "f"]
    dtype = np.result_type(*floats) if floats else np.dtype(np.float64)
    return true.astype(dtype), predicted.astype(dtype), None if weight is None else weight.astype(dtype)


def _over_outputs(values: Array, multioutput: MultiOutput) -> Any:
    if isinstance(multioutput, str):
        if check_choice("multioutput", multioutput, ("raw_values", "uniform_average")) == "raw_values":
            return values
        return float(np.average(values))
    weights = check_numbers("multioutput", multioutput)
    if weights.shape != values.shape:
        raise DataError(f"multioutput has shape {weights.shape}; expected {values.shape}, a weight for each output.")
    return float(np.average(values, weights=weights))

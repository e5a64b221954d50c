"""What metrics take, checked, and brought into the form that they count in.  N samples, K classes or outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dist_relu.core.array_checks import check_finite, check_not_masked, check_numbers
from dist_relu.core.arrays import Array
from dist_relu.errors import DataError


class Coded(NamedTuple):
    """Class labels as numbers: true and predicted (N,) int64 index `labels`, which are sorted and distinct."""

    true: Array
    predicted: Array
    labels: Array


def coded(y_true: npt.ArrayLike, y_pred: npt.ArrayLike) -> Coded:
    """Number the labels (N,) that occur in either.  Raises `DataError` for what are no labels."""
    true, predicted = _labels("y_true", y_true), _labels("y_pred", y_pred)
    check_same_length(y_true=true, y_pred=predicted)
    if (true.dtype.kind in "US") != (predicted.dtype.kind in "US"):
        raise DataError(f"y_true has labels of type {true.dtype}, but y_pred of type {predicted.dtype}.")
    labels, codes = np.unique(np.concatenate([true, predicted]), return_inverse=True)
    return Coded(codes[: len(true)], codes[len(true) :], labels)


def is_multilabel(y: npt.ArrayLike) -> bool:
    """Whether targets are an indicator (N, K): rows of 0 and 1, any number of which may be 1."""
    array = np.asarray(y)
    return array.ndim == 2 and array.shape[1] > 1 and bool(np.isin(array, (0, 1)).all())


def indicator(name: str, y: npt.ArrayLike) -> Array:
    """An indicator (N, K) as booleans.  Raises `DataError` for anything else."""
    array = check_numbers(name, y)
    if not is_multilabel(array):
        raise DataError(f"{name} of shape {array.shape} is no indicator: expected 0 and 1 of shape (N, labels).")
    check_some(name, array)
    return np.asarray(array != 0)


def check_weight(sample_weight: npt.ArrayLike | None, num_samples: int) -> Array | None:
    """Weights (N,) of samples, or None.  Raises `DataError` for other shapes, and for what is not finite."""
    if sample_weight is None:
        return None
    weight = check_numbers("sample_weight", sample_weight)
    check_finite("sample_weight", weight)
    if weight.shape != (num_samples,):
        raise DataError(f"sample_weight has shape {weight.shape}; expected ({num_samples},): one for each sample.")
    return weight.astype(np.int64) if weight.dtype.kind in "iub" else weight


def check_scores(name: str, scores: npt.ArrayLike, num_samples: int) -> Array:
    """Real numbers (N,) or (N, K).  Raises `DataError` for anything else."""
    array = check_numbers(name, scores)
    array = array if array.dtype.kind == "f" else array.astype(np.float64)
    check_finite(name, array)
    if array.ndim not in (1, 2) or len(array) != num_samples:
        raise DataError(f"{name} has shape {array.shape}; expected ({num_samples},) or ({num_samples}, classes).")
    return array.reshape(-1) if array.shape[1:] == (1,) else array


def check_probabilities(name: str, scores: npt.ArrayLike, num_samples: int) -> Array:
    """Scores from 0 to 1.  Raises `DataError` for others."""
    array = check_scores(name, scores, num_samples)
    if array.min() < 0 or array.max() > 1:
        raise DataError(f"{name} goes from {array.min():g} to {array.max():g}; expected probabilities, from 0 to 1.")
    return array


def check_labels(labels: npt.ArrayLike) -> Array:
    """The classes that columns of scores stand for, which must be sorted.  Raises `DataError` otherwise."""
    array = _labels("labels", labels)
    if not np.array_equal(np.unique(array), array):
        raise DataError(f"labels={array.tolist()}: expected distinct labels in their order.")
    return array


def positive(y_true: npt.ArrayLike, pos_label: Any = None) -> Array:
    """Which of the samples (N,) are of the class that is looked for, by default 1, or the greater of 0 and 1, -1 and 1.

    Raises `DataError` where there are more than two classes, and none was named.
    """
    true = _labels("y_true", y_true)
    if pos_label is not None:
        return np.asarray(true == pos_label)
    if true.dtype.kind in "US" or not np.isin(true, (-1, 0, 1)).all() or np.isin((-1, 0), true).all():
        raise DataError(
            f"y_true has the labels {shown_labels(np.unique(true))}; which one counts? Pass pos_label, or 0 and 1."
        )
    return np.asarray(true == 1)


def check_same_length(**arrays: Array) -> None:
    """Raise `DataError` unless all have as many samples."""
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        found = " and ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"Numbers of samples differ: {found}; expected as many.")


def check_some(name: str, array: Array) -> None:
    """Raise `DataError` where there are no samples."""
    if not len(array):
        raise DataError(f"{name} is empty; expected at least one sample.")


def shown_labels(labels: Sequence[Any] | Array) -> str:
    """Labels, for a message."""
    shown = [str(label) for label in list(labels)[:10]]
    return ", ".join(shown) + (", ..." if len(labels) > 10 else "")


def _labels(name: str, value: npt.ArrayLike) -> Array:
    """Class labels (N,): whole numbers or texts, as they are; (N, 1) becomes (N,)."""
    check_not_masked(name, value)
    array = np.asarray(value)
    if array.dtype.kind == "O" and all(isinstance(item, str) for item in array.flat):
        array = array.astype(str)
    if array.dtype.kind not in "US":
        array = check_numbers(name, array)
        check_finite(name, array)
        if array.dtype.kind == "f" and (array != np.floor(array)).any():
            raise DataError(
                f"{name} has numbers that are not whole; expected class labels. Scores are not predictions."
            )
    if array.ndim == 2 and array.shape[1] == 1:
        array = array.reshape(-1)
    if array.ndim != 1:
        raise DataError(f"{name} has shape {array.shape}; expected class labels (N,).")
    check_some(name, array)
    return array

"""Means of what was found for each class or output, and quotients whose denominator may be 0."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.errors import DataWarning

Average = Literal["binary", "micro", "macro", "weighted", "samples"] | None
ZeroDivision = Literal["warn"] | float


def mean(values: Array, weights: Any = None) -> float:
    """The mean of values (K,), NaN left out; weights: (K,), the plain mean where all of them are 0."""
    known = ~np.isnan(values)
    if not known.any():
        return float("nan")
    if weights is None:
        return float(np.nanmean(values))
    values, weights = values[known], np.asarray(weights)[known]
    return float(np.average(values, weights=weights if weights.sum() else None))


def divide(numerator: Array, denominator: Array, zero_division: ZeroDivision, what: str) -> Array:
    """Quotients (K,), and `zero_division` where the denominator is 0; "warn" is 0 with a warning.

    what: is divided, for that warning: "precision", and of what there is none.
    """
    empty = denominator == 0
    result = numerator / np.where(empty, 1, denominator)
    if empty.any():
        result[empty] = 0.0 if zero_division == "warn" else zero_division
        if zero_division == "warn":
            name, _, reason = what.partition(":")
            warnings.warn(
                f"{name} has no value for {np.count_nonzero(empty)} of {len(empty)} classes, which have {reason}, and "
                "is taken as 0. To say what it is, pass zero_division.",
                DataWarning,
                stacklevel=4,
            )
    return np.asarray(result)

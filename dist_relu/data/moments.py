"""Mean, deviation and span of samples, by sums that are exact: equal for equal samples, however they are stored."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import NamedTuple

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.data.rows import Rows
from dist_relu.kernels.exact_sums import NUM_EXPONENTS, add_exactly

_ONE = 149
"""The sums are in units of 2^-149, those of squares of 2^-298."""


class Moments(NamedTuple):
    """These are the moments of every column, (C,) float64, over all samples as float32.

    deviation: the square root of the mean of squared differences from the mean.
    """

    mean: Array
    deviation: Array
    least: Array
    most: Array


def moments_of(rows: Rows, in_columns: Callable[[Array], Array]) -> Moments:
    """Read all samples for their moments.

    in_columns: makes a block of them, (n, ...), one of columns, (..., C).  Raises `DataError` for what is no finite
    number.
    """
    sums = least = most = np.empty(0)
    num_rows = 0
    for block in rows.blocks(np.float32):
        columns = in_columns(block)
        columns = np.ascontiguousarray(columns).reshape(-1, columns.shape[-1])
        if not num_rows:
            sums = np.zeros((columns.shape[1], NUM_EXPONENTS, 3), np.int64)
            least, most = np.full((2, columns.shape[1]), [[np.inf], [-np.inf]])
        add_exactly(columns.view(np.uint32), sums)
        num_rows += len(columns)
        least, most = np.minimum(least, columns.min(axis=0)), np.maximum(most, columns.max(axis=0))
    mean, deviation = np.array([_mean_and_deviation(sums[c], num_rows) for c in range(len(sums))]).T
    return Moments(mean, deviation, least, most)


def _mean_and_deviation(counters: Array, num_rows: int) -> tuple[float, float]:
    """Those of one column, rounded once each.  counters: (NUM_EXPONENTS, 3), see `add_exactly`."""
    total = squares = 0
    for exponent in np.flatnonzero(counters.any(axis=1)).tolist():
        whole, lower, upper = counters[exponent].tolist()
        total += whole << (exponent - 1)
        squares += (lower + (upper << 24)) << 2 * (exponent - 1)
    variance = (num_rows * squares - total * total) / (num_rows * num_rows << 2 * _ONE)
    return total / (num_rows << _ONE), sqrt(variance)

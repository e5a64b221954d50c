"""Sums from which mean, variance and norm follow, formed block by block and put together in the order of the blocks.

All are in float64, whatever the arrays' dtype.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dist_relu.core.arrays import Array, as_rows
from dist_relu.kernels.normalization import channel_statistics

NUM_MOMENTS = 3
"""Of a block: mean, sum of squared distances from it, sum of magnitudes."""


@dataclass(frozen=True)
class Magnitude:
    """How large a gradient is.

    norm: the Euclidean norm; of a layer's output the root of its mean square over samples.  mean_absolute, variance:
    over all elements.
    """

    norm: float
    mean_absolute: float
    variance: float


@dataclass(frozen=True)
class Moments:
    """The moments of `size` numbers; the variance is the mean squared distance from the mean."""

    size: int
    mean: float
    variance: float
    mean_absolute: float

    @property
    def sum_of_squares(self) -> float:
        return self.size * (self.variance + self.mean**2)


def moments_of(x: Array) -> Array:
    """The moments of a block, (NUM_MOMENTS,) float64.  x: (N, ..., K), of at least one element."""
    rows = as_rows(x).astype(np.float64, order="C")
    means, variances = np.empty((2, rows.shape[1]))
    channel_statistics(rows, 0, len(rows), means, variances)
    mean = float(np.add.reduce(means)) / len(means)
    squares = len(rows) * float(np.add.reduce(variances + (means - mean) ** 2))
    return np.array([mean, squares, np.add.reduce(np.abs(rows, out=rows), axis=None)])


def put_together(blocks: Array, sizes: Array) -> Moments:
    """The moments of all blocks as one.  blocks: (blocks, NUM_MOMENTS).  sizes: (blocks,), how many numbers each has.

    They are put together as in `combine_moments`.
    """
    means, squares, magnitudes = blocks.T
    size = int(sizes.sum())
    return Moments(size, *combine_moments(means, squares, sizes), float(np.add.reduce(magnitudes)) / size)


def combine_moments(means: Array, squares: Array, sizes: Array) -> tuple[float, float]:
    """Mean and variance of all blocks as one, from the mean and the sum of squared distances from it of each.

    All (blocks,).  Chan et al. (1979).
    """
    size = int(sizes.sum())
    mean = float(np.add.reduce(sizes * means)) / size
    return mean, float(np.add.reduce(squares + sizes * (means - mean) ** 2)) / size

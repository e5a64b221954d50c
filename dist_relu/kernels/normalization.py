"""Normalisation of channels over a batch, and of each row.  M rows, C channels."""

from __future__ import annotations

from math import sqrt

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import kernel
from dist_relu.kernels.long_sums import TERMS, end_chain, end_sum, wide_sums
from dist_relu.kernels.ordered_sum import add

_ROWS_PER_SUM = 64
"""Sums of so many rows are formed in the arrays' own dtype, and added up in float64."""


@kernel
def channel_statistics(x: Array, means: Array, variances: Array) -> None:
    """Compute the mean of every column, and the mean squared distance from it.

    x: (M, C).  means, variances: (C,) float64.

    Those of a few rows are formed while these are in the cache, and put together as Chan et al. (1979) do.
    """
    part, squares, centre = np.empty(x.shape[1], x.dtype), np.empty(x.shape[1], x.dtype), np.empty(x.shape[1], x.dtype)
    means[:] = 0
    variances[:] = 0
    for start in range(0, x.shape[0], _ROWS_PER_SUM):
        stop = min(start + _ROWS_PER_SUM, x.shape[0])
        count = x.dtype.type(stop - start)
        part[:] = 0
        squares[:] = 0
        for m in range(start, stop):
            add(part, x[m])
        for c in range(part.shape[0]):
            centre[c] = part[c] / count
        for m in range(start, stop):
            row = x[m]
            for c in range(row.shape[0]):
                d = row[c] - centre[c]
                squares[c] += d * d
        share = (stop - start) / stop
        for c in range(means.shape[0]):
            d = centre[c] - means[c]
            means[c] += d * share
            variances[c] += squares[c] + d * d * (share * start)
    for c in range(variances.shape[0]):
        variances[c] /= x.shape[0]


@kernel
def scale_and_shift(x: Array, scale: Array, shift: Array, relu: bool, y: Array) -> None:
    """y = scale x + shift, or max(scale x + shift, 0) where `relu`.  x, y: (M, C).  scale, shift: (C,)."""
    zero = x.dtype.type(0)
    for m in range(x.shape[0]):
        source, target = x[m], y[m]
        if relu:
            for c in range(source.shape[0]):
                v = scale[c] * source[c] + shift[c]
                target[c] = zero if v <= zero else v
        else:
            for c in range(source.shape[0]):
                target[c] = scale[c] * source[c] + shift[c]


@kernel
def batch_norm_sums(
    dy: Array, x: Array, scale: Array, shift: Array, relu: bool, means: Array, d_scale: Array, d_shift: Array
) -> None:
    """d_scale = Σ dy (x - mean) and d_shift = Σ dy over the rows; dy counts as 0 where ReLU has cut scale x + shift.

    dy, x: (M, C).  scale, shift, means: (C,).  d_scale, d_shift: (C,) float64.
    """
    scaled, plain, zero = np.empty(x.shape[1], x.dtype), np.empty(x.shape[1], x.dtype), x.dtype.type(0)
    d_scale[:] = 0
    d_shift[:] = 0
    for start in range(0, x.shape[0], _ROWS_PER_SUM):
        scaled[:] = 0
        plain[:] = 0
        for m in range(start, min(start + _ROWS_PER_SUM, x.shape[0])):
            x_row, dy_row = x[m], dy[m]
            if relu:
                for c in range(x_row.shape[0]):
                    d = dy_row[c]
                    d = zero if scale[c] * x_row[c] + shift[c] <= zero else d
                    scaled[c] += d * (x_row[c] - means[c])
                    plain[c] += d
            else:
                for c in range(x_row.shape[0]):
                    scaled[c] += dy_row[c] * (x_row[c] - means[c])
                    plain[c] += dy_row[c]
        for c in range(d_scale.shape[0]):
            d_scale[c] += scaled[c]
            d_shift[c] += plain[c]


@kernel
def batch_norm_backward(dy: Array, x: Array, scale: Array, shift: Array, relu: bool, b: Array, c: Array) -> None:
    """dy = scale dy + b x + c, in place; dy counts as 0 where ReLU has cut scale x + shift.

    dy, x: (M, C).  scale, shift, b, c: (C,).
    """
    zero = x.dtype.type(0)
    for m in range(x.shape[0]):
        x_row, dy_row = x[m], dy[m]
        if relu:
            for k in range(x_row.shape[0]):
                d = scale[k] * dy_row[k]
                d = zero if scale[k] * x_row[k] + shift[k] <= zero else d
                dy_row[k] = d + (b[k] * x_row[k] + c[k])
        else:
            for k in range(x_row.shape[0]):
                dy_row[k] = scale[k] * dy_row[k] + (b[k] * x_row[k] + c[k])


@kernel
def layer_norm(x: Array, weight: Array, bias: Array, epsilon: float, normed: Array, inverse: Array, y: Array) -> None:
    """y = weight x̂ + bias with x̂ = (x - mean) / √(variance + epsilon) of each row.

    x, normed (gets x̂), y: (M, C).  weight, bias: (C,).  inverse: (M,), gets 1 / √(variance + epsilon).
    """
    for m in range(x.shape[0]):
        total = 0.0
        for c in range(x.shape[1]):
            total += x[m, c]
        mean = total / x.shape[1]
        squares = 0.0
        for c in range(x.shape[1]):
            d = x[m, c] - mean
            squares += d * d
        inverse[m] = 1 / sqrt(squares / x.shape[1] + epsilon)
        centre, factor = x.dtype.type(mean), inverse[m]
        for c in range(x.shape[1]):
            normed[m, c] = (x[m, c] - centre) * factor
        for c in range(x.shape[1]):
            y[m, c] = weight[c] * normed[m, c] + bias[c]


@kernel
def layer_norm_backward(
    dy: Array, normed: Array, inverse: Array, weight: Array, d_weight: Array, d_bias: Array
) -> None:
    """dy becomes dx, in place; d_weight and d_bias get their gradients.

    dy, normed: (M, C).  inverse: (M,).  weight, d_weight, d_bias: (C,).
    """
    wide_weight, wide_bias = wide_sums(dy.shape[0], d_weight.shape[0]), wide_sums(dy.shape[0], d_bias.shape[0])
    d_weight[:] = 0
    d_bias[:] = 0
    for m in range(dy.shape[0]):
        if m % TERMS == 0:
            end_chain(d_weight, wide_weight)
            end_chain(d_bias, wide_bias)
        row, hat = dy[m], normed[m]
        for c in range(row.shape[0]):
            d_weight[c] += row[c] * hat[c]
        add(d_bias, row)
        mean, along = 0.0, 0.0
        for c in range(row.shape[0]):
            g = row[c] * weight[c]
            mean += g
            along += g * hat[c]
        a, b, factor = dy.dtype.type(mean / dy.shape[1]), dy.dtype.type(along / dy.shape[1]), inverse[m]
        for c in range(row.shape[0]):
            row[c] = factor * (row[c] * weight[c] - a - hat[c] * b)
    end_sum(d_weight, wide_weight)
    end_sum(d_bias, wide_bias)

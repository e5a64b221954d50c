"""Loops of normalisation layers and dropout.  M rows, C channels."""

from __future__ import annotations

from math import sqrt

import numpy as np

from dist_relu.arrays import Array
from dist_relu.kernels.compile import kernel
from dist_relu.kernels.update import add

_ROWS_PER_SUM = 64
"""Sums of so many rows are formed in the arrays' own dtype, and added up in float64."""


@kernel
def channel_means(x: Array, means: Array) -> None:
    """The mean of every column.  x: (M, C).  means: (C,) float64."""
    part = np.empty(x.shape[1], x.dtype)
    means[:] = 0
    for start in range(0, x.shape[0], _ROWS_PER_SUM):
        part[:] = 0
        for m in range(start, min(start + _ROWS_PER_SUM, x.shape[0])):
            add(part, x[m])
        for c in range(means.shape[0]):
            means[c] += part[c]
    for c in range(means.shape[0]):
        means[c] /= x.shape[0]


@kernel
def channel_variances(x: Array, means: Array, variances: Array) -> None:
    """The mean squared distance of every column from its mean.  x: (M, C).  means, variances: (C,) float64."""
    part = np.empty(x.shape[1], x.dtype)
    centre = means.astype(x.dtype)
    variances[:] = 0
    for start in range(0, x.shape[0], _ROWS_PER_SUM):
        part[:] = 0
        for m in range(start, min(start + _ROWS_PER_SUM, x.shape[0])):
            row = x[m]
            for c in range(row.shape[0]):
                d = row[c] - centre[c]
                part[c] += d * d
        for c in range(variances.shape[0]):
            variances[c] += part[c]
    for c in range(variances.shape[0]):
        variances[c] /= x.shape[0]


@kernel
def scale_and_shift(x: Array, scale: Array, shift: Array, y: Array) -> None:
    """y = scale x + shift.  x, y: (M, C).  scale, shift: (C,)."""
    for m in range(x.shape[0]):
        for c in range(x.shape[1]):
            y[m, c] = scale[c] * x[m, c] + shift[c]


@kernel
def batch_norm_sums(dy: Array, x: Array, means: Array, inverse: Array, d_scale: Array, d_shift: Array) -> None:
    """d_scale = Σ dy x̂ and d_shift = Σ dy over the rows, x̂ = (x - mean) inverse.

    dy, x: (M, C).  means, inverse: (C,).  d_scale, d_shift: (C,) float64.
    """
    scaled = np.empty(x.shape[1], x.dtype)
    plain = np.empty(x.shape[1], x.dtype)
    d_scale[:] = 0
    d_shift[:] = 0
    for start in range(0, x.shape[0], _ROWS_PER_SUM):
        scaled[:] = 0
        plain[:] = 0
        for m in range(start, min(start + _ROWS_PER_SUM, x.shape[0])):
            x_row, dy_row = x[m], dy[m]
            for c in range(x_row.shape[0]):
                scaled[c] += dy_row[c] * ((x_row[c] - means[c]) * inverse[c])
            add(plain, dy_row)
        for c in range(d_scale.shape[0]):
            d_scale[c] += scaled[c]
            d_shift[c] += plain[c]


@kernel
def batch_norm_backward(dy: Array, x: Array, a: Array, b: Array, c: Array) -> None:
    """dy = a dy + b x + c, in place.  dy, x: (M, C).  a, b, c: (C,)."""
    for m in range(x.shape[0]):
        for k in range(x.shape[1]):
            dy[m, k] = a[k] * dy[m, k] + (b[k] * x[m, k] + c[k])


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
    d_weight[:] = 0
    d_bias[:] = 0
    for m in range(dy.shape[0]):
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


@kernel
def drop(x: Array, bits: Array, threshold: int, scale: float, y: Array) -> None:
    """y = scale x where bits >= threshold, else 0.  x, y: (n,).  bits: (n,) uint16."""
    factor, zero = x.dtype.type(scale), x.dtype.type(0)
    for i in range(x.shape[0]):
        v = factor * x[i]
        y[i] = v if bits[i] >= threshold else zero


@kernel
def drop_backward(dy: Array, bits: Array, threshold: int, scale: float) -> None:
    """dy = scale dy where bits >= threshold, else 0, in place.  dy: (n,).  bits: (n,) uint16."""
    factor, zero = dy.dtype.type(scale), dy.dtype.type(0)
    for i in range(dy.shape[0]):
        v = factor * dy[i]
        dy[i] = v if bits[i] >= threshold else zero


@kernel
def add_rows_at(indices: Array, rows: Array, table: Array) -> None:
    """table[indices[m]] += rows[m], one after another.  indices: (M,) integers.  rows: (M, C).  table: (V, C)."""
    for m in range(indices.shape[0]):
        add(table[indices[m]], rows[m])

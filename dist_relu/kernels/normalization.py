"""Normalisation of channels over a batch, and of each row.  M rows, C channels."""

from __future__ import annotations

from math import sqrt

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.kernels.columns import sum_few_rows, sum_few_rows_with_distances, sum_squares_of_few_rows
from dist_relu.kernels.jit import kernel
from dist_relu.kernels.llvm import empty
from dist_relu.kernels.long_sums import TERMS, end_chain, end_sum, wide_sums
from dist_relu.kernels.ordered_sum import add

ROWS_PER_SUM = 64
"""Sums of so many rows are formed in the arrays' own dtype, and added up in float64."""

_LONG = 256
"""Numbers of a loop that is long enough for what goes before it not to count."""


@kernel
def channel_statistics(x: Array, first: int, stop: int, means: Array, variances: Array) -> None:
    """Compute the mean of every column, and the mean squared distance from it, of all rows before `stop`.

    x: (M, C).  means, variances: (C,) float64; on entry those of the rows before `first`, but squared distances not
    yet divided by their number, as they are left where `stop` is not M. `first` is a multiple of ROWS_PER_SUM.

    Those of a few rows are formed while these are in the cache, and put together as Chan et al. (1979) do.
    """
    part, squares, centre = empty(x.shape[1], x.dtype), empty(x.shape[1], x.dtype), empty(x.shape[1], x.dtype)
    if first == 0:
        means[:] = 0
        variances[:] = 0
    for start in range(first, stop, ROWS_PER_SUM):
        end = min(start + ROWS_PER_SUM, stop)
        count = x.dtype.type(end - start)
        sum_few_rows(x, start, end, part)
        for c in range(part.shape[0]):
            centre[c] = part[c] / count
        sum_squares_of_few_rows(x, start, end, centre, squares)
        share = (end - start) / end
        for c in range(means.shape[0]):
            d = centre[c] - means[c]
            means[c] += d * share
            variances[c] += squares[c] + d * d * (share * start)
    if stop == x.shape[0]:
        for c in range(variances.shape[0]):
            variances[c] /= x.shape[0]


@kernel
def unbiased(variance: Array, num_rows: Array, result: Array) -> None:
    """result = variances of so many rows (1,) as estimates of those that the rows are drawn from.  All float64."""
    n = num_rows[0]
    factor = n / max(n - 1.0, 1.0)
    for c in range(result.shape[0]):
        result[c] = variance[c] * factor


@kernel
def sums_of_rows(means: Array, num_rows: Array, sums: Array) -> None:
    """sums = the number of rows, and then the sum of every column.  means: (C,), sums: (1 + C,), float64."""
    sums[0] = num_rows[0]
    for c in range(means.shape[0]):
        sums[1 + c] = num_rows[0] * means[c]


@kernel
def squares_from_means(means: Array, variances: Array, num_rows: Array, sums: Array, squares: Array) -> None:
    """squares = the summed squared distances of these rows from the means that `sums_of_rows` of all rows tell.

    means becomes those of all rows.  means, variances, squares: (C,).  sums: (1 + C,).  All float64.
    """
    for c in range(means.shape[0]):
        whole = sums[1 + c] / sums[0]
        d = means[c] - whole
        squares[c] = num_rows[0] * (variances[c] + d * d)
        means[c] = whole


@kernel
def variances_from_squares(squares: Array, sums: Array, num_rows: Array, variances: Array) -> None:
    """variances, and the number of rows, of all rows: from sums over them of what the two kernels above give."""
    num_rows[0] = sums[0]
    for c in range(variances.shape[0]):
        variances[c] = squares[c] / sums[0]


@kernel
def batch_norm_factors(
    means: Array,
    variances: Array,
    epsilon: float,
    weight: Array,
    bias: Array,
    inverse: Array,
    centre: Array,
    scale: Array,
    shift: Array,
) -> None:
    """scale x + shift = weight (x - mean) / √(variance + epsilon) + bias.

    means, variances, inverse (gets 1 / √(variance + epsilon)): (C,) float64.  centre gets the means.
    """
    for c in range(means.shape[0]):
        inverse[c] = 1 / np.sqrt(variances[c] + epsilon)
        factor = weight[c] * inverse[c]
        centre[c] = means[c]
        scale[c] = factor
        shift[c] = bias[c] - means[c] * factor


@kernel
def _repeated(row: Array) -> Array:
    """Repeat a row so often that a loop over the result is a long one."""
    times = max(_LONG // max(row.shape[0], 1), 1)
    result = empty(times * row.shape[0], row.dtype)
    for start in range(0, result.shape[0], max(row.shape[0], 1)):
        for c in range(row.shape[0]):
            result[start + c] = row[c]
    return result


@kernel
def scale_and_shift(x: Array, scale: Array, shift: Array, relu: bool, y: Array) -> None:
    """y = scale x + shift, or max(scale x + shift, 0) where `relu`.  x, y: (M, C).  scale, shift: (C,)."""
    scales, shifts, zero, x_flat, y_flat = (
        _repeated(scale),
        _repeated(shift),
        x.dtype.type(0),
        x.reshape(-1),
        y.reshape(-1),
    )
    for start in range(0, x_flat.shape[0], max(scales.shape[0], 1)):
        source, target = x_flat[start : start + scales.shape[0]], y_flat[start : start + scales.shape[0]]
        if relu:
            for c in range(source.shape[0]):
                v = scales[c] * source[c] + shifts[c]
                target[c] = zero if v <= zero else v
        else:
            for c in range(source.shape[0]):
                target[c] = scales[c] * source[c] + shifts[c]


@kernel
def scale_and_add(x: Array, scale: Array, shift: Array, side: Array, relu: bool, y: Array) -> None:
    """y = scale x + shift + side, or max(that, 0) where `relu`.  x, side, y: (M, C).  scale, shift: (C,)."""
    scales, shifts, zero = _repeated(scale), _repeated(shift), x.dtype.type(0)
    x_flat, side_flat, y_flat, length = x.reshape(-1), side.reshape(-1), y.reshape(-1), max(scales.shape[0], 1)
    for start in range(0, x_flat.shape[0], length):
        source, other, target = (
            x_flat[start : start + length],
            side_flat[start : start + length],
            y_flat[start : start + length],
        )
        if relu:
            for c in range(source.shape[0]):
                v = scales[c] * source[c] + shifts[c] + other[c]
                target[c] = zero if v <= zero else v
        else:
            for c in range(source.shape[0]):
                target[c] = scales[c] * source[c] + shifts[c] + other[c]


@kernel
def batch_norm_sums(
    dy: Array, x: Array, scale: Array, shift: Array, relu: bool, means: Array, d_scale: Array, d_shift: Array
) -> None:
    """d_scale = Σ dy (x - mean) and d_shift = Σ dy over the rows; dy counts as 0 where ReLU has cut scale x + shift.

    dy, x: (M, C).  scale, shift, means: (C,).  d_scale, d_shift: (C,) float64.
    """
    scaled, plain = empty(x.shape[1], x.dtype), empty(x.shape[1], x.dtype)
    scales, shifts = (scale, shift) if relu else (np.zeros_like(scale), np.ones_like(shift))  # by which nothing is cut
    d_scale[:] = 0
    d_shift[:] = 0
    for start in range(0, x.shape[0], ROWS_PER_SUM):
        stop = min(start + ROWS_PER_SUM, x.shape[0])
        sum_few_rows_with_distances(dy, x, start, stop, scales, shifts, means, scaled, plain)
        for c in range(d_scale.shape[0]):
            d_scale[c] += scaled[c]
            d_shift[c] += plain[c]


@kernel
def batch_norm_gradients(inverse: Array, d_scale: Array, d_shift: Array, d_weight: Array, d_bias: Array) -> None:
    """d_weight and d_bias get their gradients from what `batch_norm_sums` gives, of which d_scale is scaled to it."""
    for c in range(d_scale.shape[0]):
        d_scale[c] *= inverse[c]
        d_weight[c] = d_scale[c]
        d_bias[c] = d_shift[c]


@kernel
def batch_norm_coefficients(
    d_scale: Array,
    d_shift: Array,
    num_rows: Array,
    scale: Array,
    inverse: Array,
    means: Array,
    b: Array,
    c: Array,
) -> None:
    """b x + c = what the gradient of x has through mean and variance of so many rows: see `batch_norm_backward`.

    It is -scale (d_shift + x̂ d_scale) / num_rows. d_scale, d_shift: of `batch_norm_gradients`.  num_rows: (1,).
    """
    for k in range(d_scale.shape[0]):
        along = -scale[k] * inverse[k] * d_scale[k] / num_rows[0]
        b[k] = along
        c[k] = -scale[k] * d_shift[k] / num_rows[0] - along * means[k]


@kernel
def batch_norm_backward(
    dy: Array, x: Array, scale: Array, shift: Array, relu: bool, b: Array, c: Array, dx: Array
) -> None:
    """dx = scale dy + b x + c; dy counts as 0 where ReLU has cut scale x + shift.

    dy, x, dx (not dy): (M, C).  scale, shift, b, c: (C,).
    """
    scales, shifts, bs, cs, zero = _repeated(scale), _repeated(shift), _repeated(b), _repeated(c), x.dtype.type(0)
    dy_flat, x_flat, dx_flat, length = dy.reshape(-1), x.reshape(-1), dx.reshape(-1), max(scales.shape[0], 1)
    for start in range(0, x_flat.shape[0], length):
        x_run, d_run, target = (
            x_flat[start : start + length],
            dy_flat[start : start + length],
            dx_flat[start : start + length],
        )
        if relu:
            for k in range(x_run.shape[0]):
                d = scales[k] * d_run[k]
                d = zero if scales[k] * x_run[k] + shifts[k] <= zero else d
                target[k] = d + (bs[k] * x_run[k] + cs[k])
        else:
            for k in range(x_run.shape[0]):
                target[k] = scales[k] * d_run[k] + (bs[k] * x_run[k] + cs[k])


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

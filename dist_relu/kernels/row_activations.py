"""Activations that are more than a function of one number: whole rows, halves of rows, learned slopes.

`N` rows, `K` units.
"""

from __future__ import annotations

from math import log

from dist_relu.core.arrays import Array
from dist_relu.kernels.elementary import exp
from dist_relu.kernels.jit import kernel
from dist_relu.kernels.llvm import empty, maximum, zeros
from dist_relu.kernels.long_sums import TERMS, dot_row, end_chain, end_sum, sum_row, sum_rows, wide_sums

_REPEATED_SIZE = 1024


@kernel
def _exp_of_row(x: Array, y: Array) -> tuple[float, float]:
    """y = exp(x - max x), both (K,); returns max x and the sum of y."""
    largest = x[0]
    for k in range(x.shape[0]):
        largest = maximum(largest, x[k])
    for k in range(x.shape[0]):
        y[k] = exp(x[k] - largest)
    return largest, sum_row(y)


@kernel
def softmax(x: Array, y: Array) -> None:
    """y = exp(x) / Σ exp(x) over every row; both (N, K), K > 0, y not x."""
    for n in range(x.shape[0]):
        row = y[n]
        _, total = _exp_of_row(x[n], row)
        factor = x.dtype.type(1) / total
        for k in range(row.shape[0]):
            row[k] *= factor


@kernel
def softmax_backward(dy: Array, y: Array) -> None:
    """dy = y (dy - Σ dy y) over every row, in place; both (N, K)."""
    for n in range(y.shape[0]):
        d, row = dy[n], y[n]
        inner = dot_row(d, row)
        for k in range(d.shape[0]):
            d[k] = row[k] * (d[k] - inner)


@kernel
def log_softmax(x: Array, y: Array) -> None:
    """y = x - ln Σ exp(x) over every row; both (N, K), K > 0, y not x."""
    for n in range(x.shape[0]):
        row, source = y[n], x[n]
        largest, total = _exp_of_row(source, row)
        log_total = x.dtype.type(log(total))
        for k in range(row.shape[0]):
            row[k] = source[k] - largest - log_total


@kernel
def log_softmax_backward(dy: Array, y: Array) -> None:
    """dy = dy - exp(y) Σ dy over every row, in place; both (N, K)."""
    for n in range(y.shape[0]):
        d, row = dy[n], y[n]
        total = sum_row(d)
        for k in range(d.shape[0]):
            d[k] -= exp(row[k]) * total


@kernel
def _repeated(weights: Array) -> Array:
    """Repeat the weights (C,) of `prelu`, for long inner loops; returns (W,), W a multiple of C."""
    num_weights = weights.shape[0]
    result = empty((_REPEATED_SIZE + num_weights - 1) // num_weights * num_weights, weights.dtype)
    for start in range(0, result.shape[0], num_weights):
        for c in range(num_weights):
            result[start + c] = weights[c]
    return result


@kernel
def prelu(x: Array, weights: Array, y: Array) -> None:
    """y = x where x > 0, else weight · x; x, y: (n,), weights: (C,), one after another.  He et al. (2015)."""
    weights = _repeated(weights)
    width = weights.shape[0]
    for start in range(0, x.shape[0], width):
        source, target = x[start : start + width], y[start : start + width]
        for k in range(source.shape[0]):
            target[k] = source[k] if source[k] > 0 else weights[k] * source[k]


@kernel
def prelu_backward(dy: Array, x: Array, weights: Array, d_weights: Array) -> None:
    """dy = the gradient of x from that of y, in place; d_weights = that of the weights, (C,)."""
    num_weights = weights.shape[0]
    weights = _repeated(weights)
    width = weights.shape[0]
    zero, num_terms = x.dtype.type(0), (x.shape[0] + width - 1) // width
    wide, totals = wide_sums(num_terms, width), zeros(width, x.dtype)
    for first in range(0, num_terms, TERMS):
        end_chain(totals, wide)
        for start in range(first * width, min((first + TERMS) * width, x.shape[0]), width):
            source, d = x[start : start + width], dy[start : start + width]
            for k in range(source.shape[0]):
                s, v = source[k], d[k]
                product, weighted = s * v, weights[k] * v
                totals[k] += zero if s > 0 else product
                d[k] = v + zero if s > 0 else weighted
    end_sum(totals, wide)
    sum_rows(totals.reshape(width // num_weights, num_weights), d_weights)


@kernel
def rrelu(x: Array, factors: Array, y: Array, lower: float, width: float) -> None:
    """y = factor · x, with a factor of 1 where x > 0, else lower + width · u; all (n,).  Xu et al. (2015).

    factors: the numbers u from [0, 1), of which the factors are made in place.
    """
    one = x.dtype.type(1)
    for i in range(x.shape[0]):
        slope = lower + width * factors[i]
        factors[i] = one if x[i] > 0 else slope
    for i in range(x.shape[0]):
        y[i] = factors[i] * x[i]


@kernel
def rrelu_backward(dy: Array, factors: Array) -> None:
    """dy = factor · dy in place, with the factors that `rrelu` has left; both (n,)."""
    for i in range(dy.shape[0]):
        dy[i] *= factors[i]


@kernel
def crelu(x: Array, y: Array) -> None:
    """y = max(x, 0) and max(-x, 0), side by side; x: (N, K), y: (N, 2K).  Shang et al. (2016)."""
    zero = x.dtype.type(0)
    width = x.shape[1]
    for n in range(x.shape[0]):
        row, above, below = x[n], y[n, :width], y[n, width:]
        for k in range(width):
            above[k] = zero if row[k] <= 0 else row[k]
        for k in range(width):
            below[k] = zero if row[k] >= 0 else -row[k]


@kernel
def crelu_backward(dy: Array, x: Array, dx: Array) -> None:
    """dx = the gradient of x from that of y; dy: (N, 2K), x, dx: (N, K)."""
    zero = x.dtype.type(0)
    width = x.shape[1]
    for n in range(x.shape[0]):
        row, above, below, target = x[n], dy[n, :width], dy[n, width:], dx[n]
        for k in range(width):
            a, b, v = above[k], below[k], row[k]
            target[k] = (zero if v <= 0 else a) - (zero if v >= 0 else b)

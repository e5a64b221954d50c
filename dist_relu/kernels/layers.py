"""Loops around the matrix products of layers and losses.

N batch, K units.
"""

from __future__ import annotations

from math import exp, log

from dist_relu.arrays import Array
from dist_relu.kernels.compile import kernel
from dist_relu.kernels.update import add


@kernel
def relu(x: Array, y: Array) -> None:
    """y = max(x, 0), flat arrays; NaN goes through and -0.0 becomes 0.0."""
    zero = x.dtype.type(0)
    for i in range(x.shape[0]):
        y[i] = zero if x[i] <= zero else x[i]


@kernel
def relu_backward(dy: Array, x: Array) -> None:
    """dy = 0 where x <= 0, in place, flat arrays. `x` may be ReLU's input or its output.

    Works in place because a loop whose output may overlap another input is not vectorised.
    """
    zero = dy.dtype.type(0)
    for i in range(dy.shape[0]):
        v = dy[i]  # read in any case: a conditional load is not vectorised either
        dy[i] = zero if x[i] <= zero else v


@kernel
def add_bias(z: Array, bias: Array) -> None:
    """z += bias in place; z: (N, K), bias: (K,)."""
    for n in range(z.shape[0]):
        for k in range(z.shape[1]):
            z[n, k] += bias[k]


@kernel
def add_bias_relu(z: Array, bias: Array) -> None:
    """z = max(z + bias, 0) in place; z: (N, K), bias: (K,)."""
    zero = z.dtype.type(0)
    for n in range(z.shape[0]):
        for k in range(z.shape[1]):
            v = z[n, k] + bias[k]
            z[n, k] = zero if v <= zero else v


@kernel
def sum_rows(dz: Array, total: Array) -> None:
    """total = the sum of the rows of dz, in their order; dz: (N, K), total: (K,)."""
    total[:] = 0
    for n in range(dz.shape[0]):
        add(total, dz[n])


@kernel
def relu_backward_sum_rows(dy: Array, y: Array, total: Array) -> None:
    """dy = 0 where y <= 0, in place; total = the sum of the rows of the result.

    dy, y: (N, K).  total: (K,).
    """
    zero = dy.dtype.type(0)
    total[:] = 0
    for n in range(dy.shape[0]):
        for k in range(dy.shape[1]):
            v = dy[n, k]
            dy[n, k] = zero if y[n, k] <= zero else v
        add(total, dy[n])


@kernel
def softmax(z: Array, p: Array) -> None:
    """p = the softmax of every row of z; both (N, K)."""
    for n in range(z.shape[0]):
        largest = z[n, 0]
        for k in range(1, z.shape[1]):
            largest = max(largest, z[n, k])
        total = z.dtype.type(0)
        for k in range(z.shape[1]):
            e = exp(z[n, k] - largest)
            p[n, k] = e
            total += e
        for k in range(z.shape[1]):
            p[n, k] /= total


@kernel
def softmax_backward(dp: Array, p: Array, dz: Array) -> None:
    """dz = p (dp - Σ dp p), row by row; all (N, K)."""
    for n in range(p.shape[0]):
        inner = p.dtype.type(0)
        for k in range(p.shape[1]):
            inner += dp[n, k] * p[n, k]
        for k in range(p.shape[1]):
            dz[n, k] = p[n, k] * (dp[n, k] - inner)


@kernel
def cross_entropy(z: Array, labels: Array, weight: float, dz: Array) -> tuple[float, int]:
    """Sum of -log softmax(z)[label] over the rows, and how many rows have their maximum at the label.

    z: (N, K) logits.  labels: (N,) integers.  dz: (N, K) gets the gradient of the sum times `weight`; may be z.
    """
    loss, hits = 0.0, 0
    for n in range(z.shape[0]):
        label = labels[n]
        best = 0
        for k in range(1, z.shape[1]):
            if z[n, k] > z[n, best]:
                best = k
        largest = z[n, best]
        at_label = z[n, label] - largest
        total = z.dtype.type(0)
        for k in range(z.shape[1]):
            e = exp(z[n, k] - largest)
            dz[n, k] = e
            total += e
        loss += log(total) - at_label
        hits += best == label
        factor = z.dtype.type(weight) / total
        for k in range(z.shape[1]):
            dz[n, k] *= factor
        dz[n, label] -= z.dtype.type(weight)
    return loss, hits


@kernel
def squared_error(y: Array, target: Array, weight: float, dy: Array) -> float:
    """Sum of (y - target)² over all elements; dy gets the gradient of the sum times `weight`.  All flat (n,)."""
    loss = 0.0
    factor = y.dtype.type(2 * weight)
    for i in range(y.shape[0]):
        d = y[i] - target[i]
        loss += d * d
        dy[i] = factor * d
    return loss

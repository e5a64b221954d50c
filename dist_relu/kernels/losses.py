"""Losses and their gradients.  N batch, K classes."""

from __future__ import annotations

from math import log

from dist_relu.core.arrays import Array
from dist_relu.kernels.elementary import exp
from dist_relu.kernels.jit import kernel
from dist_relu.kernels.long_sums import TERMS, sum_row


@kernel
def cross_entropy(z: Array, labels: Array, scale: float, dz: Array) -> tuple[float, int]:
    """Sum -log softmax(z)[label] over the rows, and count the rows that have their maximum at the label.

    z: (N, K) logits.  labels: (N,) integers.  dz: (N, K) gets the gradient of the sum times `scale`; may be z.
    """
    loss, num_correct = 0.0, 0
    for n in range(z.shape[0]):
        label = labels[n]
        best = 0
        for k in range(1, z.shape[1]):
            if z[n, k] > z[n, best]:
                best = k
        largest = z[n, best]
        at_label = z[n, label] - largest
        for k in range(z.shape[1]):
            dz[n, k] = exp(z[n, k] - largest)
        total = z.dtype.type(0)
        if z.shape[1] > TERMS:
            total = sum_row(dz[n])
        else:
            for k in range(z.shape[1]):
                total += dz[n, k]
        loss += log(total) - at_label
        num_correct += best == label
        factor = z.dtype.type(scale) / total
        for k in range(z.shape[1]):
            dz[n, k] *= factor
        dz[n, label] -= z.dtype.type(scale)
    return loss, num_correct


@kernel
def smooth_labels(z: Array, labels: Array, smoothing: float, scale: float, dz: Array) -> float:
    """Turn the cross-entropy into that with smoothed labels; returns what the sum of losses grows by.

    z: (N, K) logits.  labels: (N,) integers.  dz: (N, K) holds the gradient of the plain loss times `scale`, and
    gets that of the smoothed one: smoothing·scale·(1 at the label, less 1/K everywhere) more.
    """
    growth = 0.0
    everywhere = z.dtype.type(smoothing * scale / z.shape[1])
    at_label = z.dtype.type(smoothing * scale)
    for n in range(z.shape[0]):
        total = 0.0
        for k in range(z.shape[1]):
            total += z[n, k]
            dz[n, k] -= everywhere
        growth += smoothing * (z[n, labels[n]] - total / z.shape[1])
        dz[n, labels[n]] += at_label
    return growth


@kernel
def squared_error(y: Array, target: Array, scale: float, dy: Array) -> float:
    """Sum (y - target)² over all elements; dy gets the gradient of the sum times `scale`.  All flat (n,)."""
    loss = 0.0
    factor = y.dtype.type(2 * scale)
    for i in range(y.shape[0]):
        d = y[i] - target[i]
        loss += d * d
        dy[i] = factor * d
    return loss


@kernel
def add_signs(dx: Array, x: Array, scale: float) -> None:
    """dx += scale · sign(x) in place, and nothing where x is 0; both flat (n,)."""
    zero = dx.dtype.type(0)
    for i in range(dx.shape[0]):
        v = x[i]
        dx[i] += scale if v > zero else (-scale if v < zero else zero)

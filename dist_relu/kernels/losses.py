"""Losses and their gradients.  N batch, K classes.

sums: (2,) float64, gets the sum of the losses and the number of correct predictions.
"""

from __future__ import annotations

from math import log

from dist_relu.core.arrays import Array
from dist_relu.kernels.elementary import exp
from dist_relu.kernels.jit import kernel
from dist_relu.kernels.long_sums import TERMS, sum_row


@kernel
def cross_entropy(z: Array, labels: Array, scale: float, dz: Array, sums: Array) -> None:
    """sums = -log softmax(z)[label] over the rows, and how many rows have their maximum at the label.

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
    sums[0], sums[1] = loss, num_correct


@kernel
def smooth_labels(z: Array, labels: Array, smoothing: float, scale: float, dz: Array, sums: Array) -> None:
    """Turn the cross-entropy in `sums` into that with smoothed labels.

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
    sums[0] += growth


@kernel
def squared_error(y: Array, target: Array, size: int, scale: float, dy: Array, sums: Array) -> None:
    """sums = (y - target)² over samples of `size` elements each, of which a loss is the mean, and no predictions.

    y, target, dy: flat (N · size,).  dy gets the gradient of the sum times `scale`.
    """
    loss = 0.0
    factor = y.dtype.type(2 * (scale / size))
    for i in range(y.shape[0]):
        d = y[i] - target[i]
        loss += d * d
        dy[i] = factor * d
    sums[0], sums[1] = loss / size, 0


@kernel
def mix_losses(share: float, others: Array, d_others: Array, d_outputs: Array, sums: Array) -> None:
    """Make of a loss `share` of it and the rest of another, whose sums are `others`; d_outputs += d_others, both (n,).

    The predictions that count are those for the larger share.
    """
    sums[0] = share * sums[0] + (1 - share) * others[0]
    if share < 0.5:
        sums[1] = others[1]
    for i in range(d_outputs.shape[0]):
        d_outputs[i] += d_others[i]


@kernel
def add_signs(dx: Array, x: Array, scale: float) -> None:
    """dx += scale · sign(x) in place, and nothing where x is 0; both flat (n,)."""
    zero = dx.dtype.type(0)
    for i in range(dx.shape[0]):
        v = x[i]
        dx[i] += scale if v > zero else (-scale if v < zero else zero)

"""Losses and their gradients.  N batch, K classes or labels, F numbers of a sample.

weights: (N,) float64, what the loss of each sample is multiplied by; (0,) where it is multiplied by nothing.
sums: (2,) float64, gets the sum of the losses and the number of correct predictions, or (3,), gets the weight of these
too.
"""

from __future__ import annotations

from math import log

from dist_relu.core.arrays import Array
from dist_relu.kernels.elementary import exp
from dist_relu.kernels.jit import kernel
from dist_relu.kernels.long_sums import TERMS, sum_row


@kernel
def cross_entropy(z: Array, labels: Array, weights: Array, scale: float, dz: Array, sums: Array) -> None:
    """sums = -log softmax(z)[label] over the rows, and how many rows have their maximum at the label.

    z: (N, K) logits.  labels: (N,) integers.  dz: (N, K) gets the gradient of the sum times `scale`; may be z.
    """
    loss, num_correct, weight_correct = 0.0, 0, 0.0
    for n in range(z.shape[0]):
        weight = weights[n] if weights.shape[0] else 1.0
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
        loss += weight * (log(total) - at_label)
        num_correct += best == label
        weight_correct += weight * (best == label)
        factor = z.dtype.type(weight * scale) / total
        for k in range(z.shape[1]):
            dz[n, k] *= factor
        dz[n, label] -= z.dtype.type(weight * scale)
    sums[0], sums[1] = loss, num_correct
    if sums.shape[0] > 2:
        sums[2] = weight_correct


@kernel
def smooth_labels(
    z: Array, labels: Array, weights: Array, smoothing: float, scale: float, dz: Array, sums: Array
) -> None:
    """Turn the cross-entropy in `sums` into that with smoothed labels.

    z: (N, K) logits.  labels: (N,) integers.  dz: (N, K) holds the gradient of the plain loss times `scale`, and
    gets that of the smoothed one: smoothing·scale·(1 at the label, less 1/K everywhere) more.
    """
    growth = 0.0
    for n in range(z.shape[0]):
        weight = weights[n] if weights.shape[0] else 1.0
        everywhere = z.dtype.type(weight * (smoothing * scale / z.shape[1]))
        at_label = z.dtype.type(weight * (smoothing * scale))
        total = 0.0
        for k in range(z.shape[1]):
            total += z[n, k]
            dz[n, k] -= everywhere
        growth += weight * (smoothing * (z[n, labels[n]] - total / z.shape[1]))
        dz[n, labels[n]] += at_label
    sums[0] += growth


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

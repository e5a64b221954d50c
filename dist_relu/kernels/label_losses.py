"""Losses of labels that are there or not, each by itself, and those that look less at samples which are easy.

weights, sums: as in `dist_relu.kernels.losses`; a sample is right when all of its labels are.  N batch, K labels or
classes.  Everything comes from ln p = -softplus(-z) and ln(1 - p) = -softplus(z), which no logit makes overflow.
"""

from __future__ import annotations

from math import log

from dist_relu.core.arrays import Array
from dist_relu.kernels.elementary import exp, log1p
from dist_relu.kernels.jit import kernel


@kernel
def binary_cross_entropy(
    z: Array, targets: Array, weights: Array, pos_weights: Array, scale: float, dz: Array, sums: Array
) -> None:
    """sums = -(pos_weight · t ln p + (1 - t) ln(1 - p)), the mean over the labels of each sample.

    z, dz: (N, K) logits and the gradient of the sum times `scale`.  targets: (N, K), t from 0 to 1.
    pos_weights: (K,), or (1,) for all labels.
    """
    size = z.shape[1]
    one, zero = z.dtype.type(1), z.dtype.type(0)
    loss, num_correct, weight_correct = 0.0, 0, 0.0
    for n in range(z.shape[0]):
        weight = weights[n] if weights.shape[0] else 1.0
        factor = z.dtype.type(weight * (scale / size))
        of_sample, num_right = 0.0, 0
        for k in range(size):
            v, t = z[n, k], z.dtype.type(targets[n, k])
            e = exp(-abs(v))
            tail, larger = log1p(e), one / (one + e)
            smaller = e * larger
            positive = z.dtype.type(pos_weights[k if pos_weights.shape[0] > 1 else 0]) * t
            of_sample += positive * (tail + max(-v, zero)) + (one - t) * (tail + max(v, zero))
            p, rest = (smaller, larger) if v < zero else (larger, smaller)
            dz[n, k] = factor * ((one - t) * p - positive * rest)
            num_right += (v > zero) == (t > z.dtype.type(0.5))
        loss += weight * of_sample
        num_correct += num_right == size
        weight_correct += weight * (num_right == size)
    sums[0], sums[1] = loss / size, num_correct
    if sums.shape[0] > 2:
        sums[2] = weight_correct


@kernel
def binary_focal(
    z: Array, targets: Array, weights: Array, gamma: float, alphas: Array, scale: float, dz: Array, sums: Array
) -> None:
    """sums = -(α₁ t (1 - p)^γ ln p + α₀ (1 - t) p^γ ln(1 - p)), the mean over the labels of each sample.

    z, targets, dz: as for `binary_cross_entropy`.  alphas: (2,), α₀ and α₁.
    """
    size = z.shape[1]
    one, zero, power = z.dtype.type(1), z.dtype.type(0), z.dtype.type(gamma)
    loss, num_correct, weight_correct = 0.0, 0, 0.0
    for n in range(z.shape[0]):
        weight = weights[n] if weights.shape[0] else 1.0
        factor = z.dtype.type(weight * (scale / size))
        of_sample, num_right = 0.0, 0
        for k in range(size):
            v, t = z[n, k], z.dtype.type(targets[n, k])
            e = exp(-abs(v))
            tail, larger = log1p(e), one / (one + e)
            smaller = e * larger
            p, rest = (smaller, larger) if v < zero else (larger, smaller)
            of_one, of_zero = tail + max(-v, zero), tail + max(v, zero)  # -ln p, -ln(1 - p)
            to_one = z.dtype.type(alphas[1]) * t * exp(-power * of_zero)
            to_zero = z.dtype.type(alphas[0]) * (one - t) * exp(-power * of_one)
            of_sample += to_one * of_one + to_zero * of_zero
            slope = to_zero * (p + power * rest * of_zero) - to_one * (rest + power * p * of_one)
            dz[n, k] = factor * slope
            num_right += (v > zero) == (t > z.dtype.type(0.5))
        loss += weight * of_sample
        num_correct += num_right == size
        weight_correct += weight * (num_right == size)
    sums[0], sums[1] = loss / size, num_correct
    if sums.shape[0] > 2:
        sums[2] = weight_correct


@kernel
def focal(z: Array, labels: Array, weights: Array, gamma: float, scale: float, dz: Array, sums: Array) -> None:
    """sums = -(1 - p)^γ ln p, p = softmax(z)[label], and how many rows have their maximum at the label.

    z: (N, K) logits.  labels: (N,) integers.  dz: (N, K) gets the gradient of the sum times `scale`.
    """
    loss, num_correct, weight_correct = 0.0, 0, 0.0
    for n in range(z.shape[0]):
        weight = weights[n] if weights.shape[0] else 1.0
        label = labels[n]
        best = 0
        for k in range(1, z.shape[1]):
            if z[n, k] > z[n, best]:
                best = k
        others = 0.0
        for k in range(z.shape[1]):
            dz[n, k] = exp(z[n, k] - z[n, best])
            if k != label:
                others += dz[n, k]
        total = dz[n, label] + others
        p, rest = dz[n, label] / total, others / total
        log_p = -log1p(others) if best == label and others <= 1.0 else z[n, label] - z[n, best] - log(total)
        easing, steepness = 1.0, 0.0
        if gamma > 0.0:
            easing = exp(gamma * log(rest)) if rest > 0.0 else 0.0
            steepness = gamma * p * log_p * (easing / rest) if rest > 0.0 else 0.0
        loss -= weight * easing * log_p
        factor = weight * scale * (easing - steepness)
        for k in range(z.shape[1]):
            dz[n, k] *= z.dtype.type(factor / total)
        dz[n, label] = z.dtype.type(-factor * rest)
        num_correct += best == label
        weight_correct += weight * (best == label)
    sums[0], sums[1] = loss, num_correct
    if sums.shape[0] > 2:
        sums[2] = weight_correct

"""What makes targets softer.  N batch, K classes."""

from __future__ import annotations

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import kernel


@kernel
def smooth_labels(z: Array, labels: Array, smoothing: float, weight: float, dz: Array) -> float:
    """Turn the cross-entropy into that with smoothed labels; returns what the sum of losses grows by.

    z: (N, K) logits.  labels: (N,) integers.  dz: (N, K) holds the gradient of the plain loss times `weight`, and
    gets that of the smoothed one: smoothing·weight·(1 at the label, less 1/K everywhere) more.
    """
    growth = 0.0
    everywhere = z.dtype.type(smoothing * weight / z.shape[1])
    at_label = z.dtype.type(smoothing * weight)
    for n in range(z.shape[0]):
        total = 0.0
        for k in range(z.shape[1]):
            total += z[n, k]
            dz[n, k] -= everywhere
        growth += smoothing * (z[n, labels[n]] - total / z.shape[1])
        dz[n, labels[n]] += at_label
    return growth

"""What samples of a step count."""

from __future__ import annotations

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import kernel


@kernel
def gather_weights(weights: Array, of_step: Array, numbers: Array, first: int, stop: int, out: Array) -> None:
    """out = weights[numbers[first:stop]], as shares of the mean weight of the step's samples; 0 where that is 0.

    weights: (N,) float64.  of_step: the numbers of all samples of the step.  out: (stop - first,) float64.
    The sum is over the whole step in its order, whoever asks for which part of it.
    """
    total = 0.0
    for i in range(of_step.shape[0]):
        total += weights[of_step[i]]
    factor = of_step.shape[0] / total if total > 0.0 else 0.0
    for n in range(stop - first):
        out[n] = factor * weights[numbers[first + n]]

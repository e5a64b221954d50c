"""What a loss is, and how one of anybody's is called in a pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import prod

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.guards import guard, is_ours
from dist_relu.kernels.tape import in_python
from dist_relu.nn import boundary
from dist_relu.nn.layer import PLAIN, Pass, Shape

UNWEIGHTED = np.empty(0)
"""In place of the weights of samples that all count alike."""


class Loss(ABC):
    """What is minimised: the mean of a function of output and target over the samples of a batch."""

    def __init_subclass__(cls) -> None:
        guard(cls, backward=boundary.loss_backward)

    @abstractmethod
    def check(self, targets: Array, output_shape: Shape) -> None:
        """Raise `DataError` unless the targets (N, ...) suit a model with outputs of `output_shape`."""

    @abstractmethod
    def backward(self, outputs: Array, targets: Array, scale: float, d_outputs: Array) -> tuple[float, int]:
        """The sum of the losses of some samples, and how many of them were predicted right.

        outputs: (N, *output_shape).  d_outputs: the same, gets the gradient of the sum times `scale`; for the
        mean over a batch, `scale` is one over its size.
        """


class CompiledLoss(Loss):
    """A loss of this package, which kernels bring from array to array, so that steps can be played without Python."""

    @abstractmethod
    def backward_into(
        self, outputs: Array, targets: Array, weights: Array, scale: float, d_outputs: Array, sums: Array, run: Pass
    ) -> None:
        """Do what `backward` does, with targets that were checked; what that returns goes into `sums` (2,) float64.

        weights: (N,) float64, by which the loss of each sample is multiplied, or `UNWEIGHTED`.
        sums: may have a third element, for the weight of the samples that were predicted right.
        run: the pass whose scratch memory it takes.
        """

    def backward(self, outputs: Array, targets: Array, scale: float, d_outputs: Array) -> tuple[float, int]:
        sums = np.empty(2)
        self.backward_into(outputs, targets, UNWEIGHTED, scale, d_outputs, sums, PLAIN)
        return float(sums[0]), int(sums[1])


def backward_into(
    loss: Loss,
    outputs: Array,
    targets: Array,
    scale: float,
    d_outputs: Array,
    sums: Array,
    run: Pass,
    weights: Array = UNWEIGHTED,
) -> None:
    """`CompiledLoss.backward_into` of any loss; whoever wrote one of their own, or on top of ours, wrote `backward`."""
    if isinstance(loss, CompiledLoss) and is_ours(type(loss)):
        loss.backward_into(outputs, targets, weights, scale, d_outputs, sums, run)
    elif len(weights):
        in_python(lambda: _sample_by_sample(loss, outputs, targets, weights, scale, d_outputs, sums))
    else:
        in_python(lambda: np.copyto(sums, loss.backward(outputs, targets, scale, d_outputs)))


def _sample_by_sample(
    loss: Loss, outputs: Array, targets: Array, weights: Array, scale: float, d_outputs: Array, sums: Array
) -> None:
    """Weigh the samples of a loss that tells only their sum."""
    sums[:] = 0
    for n, weight in enumerate(weights.tolist()):
        one = slice(n, n + 1)
        of_one, is_right = loss.backward(outputs[one], targets[one], weight * scale, d_outputs[one])
        sums[:] += np.array([weight * of_one, is_right, weight * is_right])[: len(sums)]


def rows_of(array: Array) -> Array:
    """(N, ...) as (N, F), the same memory."""
    return array.reshape(len(array), prod(array.shape[1:]))

"""What a loss is, and how one of anybody's is called in a pass."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.guards import guard, is_ours
from dist_relu.kernels.tape import in_python
from dist_relu.nn import boundary
from dist_relu.nn.layer import PLAIN, Pass, Shape


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
        self, outputs: Array, targets: Array, scale: float, d_outputs: Array, sums: Array, run: Pass
    ) -> None:
        """Do what `backward` does, with targets that were checked; what that returns goes into `sums` (2,) float64.

        run: the pass whose scratch memory it takes.
        """

    def backward(self, outputs: Array, targets: Array, scale: float, d_outputs: Array) -> tuple[float, int]:
        sums = np.empty(2)
        self.backward_into(outputs, targets, scale, d_outputs, sums, PLAIN)
        return float(sums[0]), int(sums[1])


def backward_into(
    loss: Loss, outputs: Array, targets: Array, scale: float, d_outputs: Array, sums: Array, run: Pass
) -> None:
    """`CompiledLoss.backward_into` of any loss; whoever wrote one of their own, or on top of ours, wrote `backward`."""
    if isinstance(loss, CompiledLoss) and is_ours(type(loss)):
        loss.backward_into(outputs, targets, scale, d_outputs, sums, run)
    else:
        in_python(lambda: np.copyto(sums, loss.backward(outputs, targets, scale, d_outputs)))

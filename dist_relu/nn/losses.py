"""Losses: sums over samples, so that shards of any size add up to the mean of the whole batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import prod
from typing import final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_fields, check_probability, check_share, instance_of
from dist_relu.core.guards import guard, is_ours
from dist_relu.errors import DataError
from dist_relu.kernels import losses as kernels
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


@final
@dataclass(frozen=True)
class CrossEntropy(CompiledLoss):
    """-log softmax(outputs)[target], from logits (N, K) and class numbers (N,).

    label_smoothing: the share of the target's probability that is spread over all classes alike.
    Szegedy et al. (2016), section 7.
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self, label_smoothing=check_share)

    def check(self, targets: Array, output_shape: Shape) -> None:
        if targets.ndim != 1 or targets.dtype.kind not in "iub":
            raise DataError(
                f"Cross-entropy needs class numbers: integers of shape (N,), not {targets.dtype} of shape "
                f"{targets.shape}. For real targets use the mean squared error."
            )
        if len(output_shape) != 1:
            raise DataError(f"Cross-entropy needs a model with outputs of shape (classes,), not {output_shape}.")
        wrong = np.flatnonzero((targets < 0) | (targets >= output_shape[0]))
        if len(wrong):
            raise DataError(
                f"Label {targets[wrong[0]]} of sample {wrong[0]} is outside the classes 0 to {output_shape[0] - 1} "
                "that the model tells apart."
            )

    def backward_into(
        self, outputs: Array, targets: Array, scale: float, d_outputs: Array, sums: Array, run: Pass
    ) -> None:
        kernels.cross_entropy(outputs, targets, scale, d_outputs, sums)
        if self.label_smoothing:
            kernels.smooth_labels(outputs, targets, self.label_smoothing, scale, d_outputs, sums)


@final
@dataclass(frozen=True)
class MeanSquaredError(CompiledLoss):
    """(output - target)², averaged over the elements of a sample.  Both (N, *output_shape)."""

    def check(self, targets: Array, output_shape: Shape) -> None:
        if targets.shape[1:] != output_shape or not np.issubdtype(targets.dtype, np.floating):
            raise DataError(
                f"The mean squared error needs real targets of shape (N, {', '.join(map(str, output_shape))}) as the "
                f"model's outputs, not {targets.dtype} of shape {targets.shape}. Of whole numbers y.astype('float32') "
                "makes real ones; rows with a single 1 become class numbers with y.argmax(axis=1)."
            )

    def backward_into(
        self, outputs: Array, targets: Array, scale: float, d_outputs: Array, sums: Array, run: Pass
    ) -> None:
        size = prod(outputs.shape[1:])
        kernels.squared_error(outputs.reshape(-1), targets.reshape(-1), size, scale, d_outputs.reshape(-1), sums)


@final
@dataclass(frozen=True, eq=False)
class MixedTargets(CompiledLoss):
    """`share` of a loss with the targets, and the rest with `others`, the targets of the samples mixed in.

    others: as many as there are targets.  A sample is right where its target of the larger share is predicted.

    Zhang et al. (2018), "mixup: beyond empirical risk minimization": for losses that are linear in the target the same
    as the loss with mixed targets, and with the same gradient for the squared error.
    """

    loss: Loss
    others: Array
    share: float

    def __post_init__(self) -> None:
        check_fields(self, loss=instance_of(Loss), others=instance_of(np.ndarray), share=check_probability)

    def check(self, targets: Array, output_shape: Shape) -> None:
        if len(self.others) != len(targets):
            raise DataError(f"MixedTargets has {len(self.others)} others; expected as many as targets: {len(targets)}.")
        self.loss.check(targets, output_shape)
        self.loss.check(self.others, output_shape)

    def backward_into(
        self, outputs: Array, targets: Array, scale: float, d_outputs: Array, sums: Array, run: Pass
    ) -> None:
        name = f"{type(self.loss).__name__} of others"
        d_others = run.scratch(name, d_outputs.shape, d_outputs.dtype)
        of_others = run.scratch(f"{name}, sums", (2,), np.float64)
        backward_into(self.loss, outputs, targets, scale * self.share, d_outputs, sums, run)
        backward_into(self.loss, outputs, self.others, scale * (1 - self.share), d_others, of_others, run)
        kernels.mix_losses(self.share, of_others, d_others.reshape(-1), d_outputs.reshape(-1), sums)

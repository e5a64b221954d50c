"""Losses made of other losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_fields, check_probability, instance_of
from dist_relu.errors import DataError
from dist_relu.kernels import losses as kernels
from dist_relu.nn.layer import Pass, Shape
from dist_relu.nn.losses.loss import CompiledLoss, Loss, backward_into


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

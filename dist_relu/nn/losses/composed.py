"""Losses made of other losses: of samples that are mixed, or that count more or less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_fields, check_probability, instance_of, optional
from dist_relu.errors import DataError
from dist_relu.kernels import losses as kernels
from dist_relu.nn.layer import Pass, Shape
from dist_relu.nn.losses.loss import CompiledLoss, Loss, backward_into


@final
@dataclass(frozen=True, eq=False)
class MixedTargets(CompiledLoss):
    """`share` of a loss with the targets, and the rest with `others`, the targets of the samples mixed in.

    others: as many as there are targets.  A sample is right where its target of the larger share is predicted.
    others_weights: (N,) of samples that are weighted; None: those of the targets.

    Zhang et al. (2018), "mixup: beyond empirical risk minimization": for losses that are linear in the target the same
    as the loss with mixed targets, and with the same gradient for the squared error.
    """

    loss: Loss
    others: Array
    share: float
    others_weights: Array | None = None

    def __post_init__(self) -> None:
        check_fields(
            self,
            loss=instance_of(Loss),
            others=instance_of(np.ndarray),
            share=check_probability,
            others_weights=optional(instance_of(np.ndarray)),
        )

    def check(self, targets: Array, output_shape: Shape) -> None:
        if len(self.others) != len(targets):
            raise DataError(f"MixedTargets has {len(self.others)} others; expected as many as targets: {len(targets)}.")
        self.loss.check(targets, output_shape)
        self.loss.check(self.others, output_shape)

    def backward_into(
        self, outputs: Array, targets: Array, weights: Array, scale: float, d_outputs: Array, sums: Array, run: Pass
    ) -> None:
        name = f"{type(self.loss).__name__} of others"
        d_others = run.scratch(name, d_outputs.shape, d_outputs.dtype)
        of_others = run.scratch(f"{name}, sums", sums.shape, np.float64)
        theirs = weights if self.others_weights is None else self.others_weights
        share = self.share
        backward_into(self.loss, outputs, targets, scale * share, d_outputs, sums, run, weights)
        backward_into(self.loss, outputs, self.others, scale * (1 - share), d_others, of_others, run, theirs)
        kernels.mix_losses(share, of_others, d_others.reshape(-1), d_outputs.reshape(-1), sums)


@final
@dataclass(frozen=True, eq=False)
class Weighted(CompiledLoss):
    """A loss that is multiplied for each sample by its weight.

    weights: (N,) float64.
    """

    loss: Loss
    weights: Array

    def check(self, targets: Array, output_shape: Shape) -> None:
        self.loss.check(targets, output_shape)

    def backward_into(
        self, outputs: Array, targets: Array, weights: Array, scale: float, d_outputs: Array, sums: Array, run: Pass
    ) -> None:
        assert not len(weights), "samples are weighted once"
        backward_into(self.loss, outputs, targets, scale, d_outputs, sums, run, self.weights)

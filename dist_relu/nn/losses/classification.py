"""Losses of class numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_fields, check_share
from dist_relu.errors import DataError
from dist_relu.kernels import losses as kernels
from dist_relu.nn.layer import Pass, Shape
from dist_relu.nn.losses.loss import CompiledLoss


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
        check_classes("Cross-entropy", targets, output_shape)

    def backward_into(
        self, outputs: Array, targets: Array, weights: Array, scale: float, d_outputs: Array, sums: Array, run: Pass
    ) -> None:
        kernels.cross_entropy(outputs, targets, weights, scale, d_outputs, sums)
        if self.label_smoothing:
            kernels.smooth_labels(outputs, targets, weights, self.label_smoothing, scale, d_outputs, sums)


def check_classes(name: str, targets: Array, output_shape: Shape) -> None:
    """Raise `DataError` unless targets are numbers of the classes that a model tells apart.  name: of the loss."""
    if targets.ndim != 1 or targets.dtype.kind not in "iub":
        raise DataError(
            f"{name} needs class numbers: integers of shape (N,), not {targets.dtype} of shape "
            f"{targets.shape}. For real targets use the mean squared error."
        )
    if len(output_shape) != 1:
        raise DataError(f"{name} needs a model with outputs of shape (classes,), not {output_shape}.")
    wrong = np.flatnonzero((targets < 0) | (targets >= output_shape[0]))
    if len(wrong):
        raise DataError(
            f"Label {targets[wrong[0]]} of sample {wrong[0]} is outside the classes 0 to {output_shape[0] - 1} "
            "that the model tells apart."
        )

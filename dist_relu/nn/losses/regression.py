"""Losses of real targets: of their distance from the outputs, averaged over the numbers of a sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_fields, check_positive
from dist_relu.errors import DataError
from dist_relu.kernels import errors as kernels
from dist_relu.nn.layer import Pass, Shape
from dist_relu.nn.losses.loss import CompiledLoss, rows_of


@final
@dataclass(frozen=True)
class MeanSquaredError(CompiledLoss):
    """(output - target)², averaged over the elements of a sample.  Both (N, *output_shape)."""

    def check(self, targets: Array, output_shape: Shape) -> None:
        _check_real("mean squared error", targets, output_shape)

    def backward_into(
        self, outputs: Array, targets: Array, weights: Array, scale: float, d_outputs: Array, sums: Array, run: Pass
    ) -> None:
        kernels.squared_error(rows_of(outputs), rows_of(targets), weights, 0.0, scale, rows_of(d_outputs), sums)


@final
@dataclass(frozen=True)
class MeanAbsoluteError(CompiledLoss):
    """|output - target|, averaged over the elements of a sample.  Both (N, *output_shape).

    Its slope is 0 where they are equal. What it is least for is the median of the targets, not their mean.
    """

    def check(self, targets: Array, output_shape: Shape) -> None:
        _check_real("mean absolute error", targets, output_shape)

    def backward_into(
        self, outputs: Array, targets: Array, weights: Array, scale: float, d_outputs: Array, sums: Array, run: Pass
    ) -> None:
        kernels.absolute_error(rows_of(outputs), rows_of(targets), weights, 0.0, scale, rows_of(d_outputs), sums)


@final
@dataclass(frozen=True)
class Huber(CompiledLoss):
    """d²/2 where |d| <= delta, and delta · (|d| - delta/2) beyond it; d = output - target, both (N, *output_shape).

    Averaged over the elements of a sample.  Huber (1964), "Robust estimation of a location parameter", section 4.
    """

    delta: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self, delta=check_positive)

    def check(self, targets: Array, output_shape: Shape) -> None:
        _check_real("Huber loss", targets, output_shape)

    def backward_into(
        self, outputs: Array, targets: Array, weights: Array, scale: float, d_outputs: Array, sums: Array, run: Pass
    ) -> None:
        kernels.huber(rows_of(outputs), rows_of(targets), weights, self.delta, scale, rows_of(d_outputs), sums)


def _check_real(name: str, targets: Array, output_shape: Shape) -> None:
    if targets.shape[1:] != output_shape or not np.issubdtype(targets.dtype, np.floating):
        are_labels = targets.ndim == 2 and targets.dtype.kind in "iub" and targets.size and targets.max() <= 1
        advice = " There is a loss for labels that are there or not: the binary cross-entropy." if are_labels else ""
        raise DataError(
            f"The {name} needs real targets of shape (N, {', '.join(map(str, output_shape))}) as the "
            f"model's outputs, not {targets.dtype} of shape {targets.shape}. Of whole numbers y.astype('float32') "
            "makes real ones; rows with a single 1 become class numbers with y.argmax(axis=1)." + advice
        )

"""Losses of real targets."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.errors import DataError
from dist_relu.kernels import losses as kernels
from dist_relu.nn.layer import Pass, Shape
from dist_relu.nn.losses.loss import CompiledLoss


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

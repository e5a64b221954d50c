"""Losses of labels that are there or not, any number of them for a sample, and of classes that are hard to tell.

A label is predicted where its logit is above 0, and a target of more than 1/2 says that it is there. A sample counts as
right when all of its labels are, as scikit-learn's `accuracy_score` has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.checks import (
    check_fields,
    check_float,
    check_not_negative,
    check_positive,
    check_sequence,
    optional,
)
from dist_relu.errors import DataError
from dist_relu.kernels import label_losses as kernels
from dist_relu.nn.layer import Pass, Shape
from dist_relu.nn.losses.classification import check_classes
from dist_relu.nn.losses.loss import CompiledLoss, rows_of


@final
@dataclass(frozen=True)
class BinaryCrossEntropy(CompiledLoss):
    """-(pos_weight · t ln p + (1 - t) ln(1 - p)) with p = sigmoid(output), averaged over the labels of a sample.

    From logits (N, K) and targets t (N, K), 0 or 1 or between; of a single output also class numbers (N,) 0 and 1.
    pos_weight: how much more labels count that are there, one number or one for each label.
    """

    pos_weight: float | Sequence[float] = 1.0
    _pos_weights: Array = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_fields(self, pos_weight=_check_weight)
        object.__setattr__(self, "_pos_weights", np.array(self.pos_weight, np.float64, ndmin=1))

    def check(self, targets: Array, output_shape: Shape) -> None:
        _check_labels("Binary cross-entropy", targets, output_shape)
        if isinstance(self.pos_weight, tuple) and len(self.pos_weight) != output_shape[0]:
            raise DataError(
                f"BinaryCrossEntropy(pos_weight) has {len(self.pos_weight)} numbers; expected one for each of the "
                f"{output_shape[0]} labels, or a single one."
            )

    def backward_into(
        self, outputs: Array, targets: Array, weights: Array, scale: float, d_outputs: Array, sums: Array, run: Pass
    ) -> None:
        kernels.binary_cross_entropy(outputs, rows_of(targets), weights, self._pos_weights, scale, d_outputs, sums)


@final
@dataclass(frozen=True)
class Focal(CompiledLoss):
    """-(1 - p)^gamma ln p, where p is the probability of what is true: samples that are easy count less.

    From logits (N, K). With class numbers (N,) p is softmax(outputs)[target]; with labels (N, K), 0 or 1 or between, it
    is sigmoid(output) of one that is there and the rest to 1 of one that is not, and a sample's loss is the mean over
    its labels. gamma: 0 is the (binary) cross-entropy.  alpha: of labels, the weight of those that are there, and
    1 - alpha that of the others; None: 1 for both. Of classes, `class_weight` does that.

    Lin et al. (2017), "Focal loss for dense object detection", equations 4 and 5.
    """

    gamma: float = 2.0
    alpha: float | None = None
    _alphas: Array = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_fields(self, gamma=check_not_negative, alpha=optional(partial(check_float, above=0, below=1)))
        alphas = (1.0, 1.0) if self.alpha is None else (1 - self.alpha, self.alpha)
        object.__setattr__(self, "_alphas", np.array(alphas))

    def check(self, targets: Array, output_shape: Shape) -> None:
        if targets.ndim != 1 or output_shape == (1,):
            _check_labels("Focal loss", targets, output_shape)
            return
        check_classes("Focal loss", targets, output_shape)
        if self.alpha is not None:
            raise DataError(
                f"Focal(alpha={self.alpha}) weighs labels that are there against those that are not, but these targets "
                "are class numbers. Leave alpha away, and pass class_weight={class: weight}."
            )

    def backward_into(
        self, outputs: Array, targets: Array, weights: Array, scale: float, d_outputs: Array, sums: Array, run: Pass
    ) -> None:
        if targets.ndim == 1 and outputs.shape[1] > 1:
            kernels.focal(outputs, targets, weights, self.gamma, scale, d_outputs, sums)
            return
        kernels.binary_focal(outputs, rows_of(targets), weights, self.gamma, self._alphas, scale, d_outputs, sums)


def _check_weight(name: str, value: Any) -> float | tuple[float, ...]:
    """One positive number, or several."""
    if np.ndim(value) == 0:
        return check_positive(name, value)
    return check_sequence(name, value, check_positive, "numbers")


def _check_labels(name: str, targets: Array, output_shape: Shape) -> None:
    """Raise `DataError` unless targets say of each of a model's outputs whether it is there."""
    if len(output_shape) != 1:
        raise DataError(f"{name} needs a model with outputs of shape (labels,), not {output_shape}.")
    is_column = output_shape == (1,) and targets.ndim == 1
    if targets.shape[1:] != output_shape and not is_column:
        advice = ""
        if targets.ndim == 1 and targets.dtype.kind in "iub":
            advice = " Class numbers are for the cross-entropy, with an output for each class."
        raise DataError(
            f"{name} needs targets of shape (N, {output_shape[0]}), 0 or 1 for each label, not {targets.dtype} of "
            f"shape {targets.shape}.{advice}"
        )
    wrong = np.flatnonzero(~((targets >= 0) & (targets <= 1)).reshape(len(targets), -1).all(axis=1))
    if len(wrong):
        raise DataError(f"{name} needs targets from 0 to 1, but those of sample {wrong[0]} are {targets[wrong[0]]}.")

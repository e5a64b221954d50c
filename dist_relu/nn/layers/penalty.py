"""Penalties on what comes out of layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_fields, check_not_negative
from dist_relu.kernels.losses import add_signs
from dist_relu.nn.layer import PLAIN, Layer, Param, Pass, Shape


@final
@dataclass(eq=False)
class ActivityPenalty(Layer):
    """y = x, of any shape; in training l1 · Σ|x| is added to the loss of each sample, so that more of x becomes 0.

    It stands behind the activation that it penalises. Losses are reported without it.  Glorot et al. (2011), section 3.
    """

    l1: float
    _x: Array = field(init=False, repr=False)
    _in_training: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_fields(self, l1=check_not_negative)

    def build(self, input_shape: Shape) -> Shape:
        return input_shape

    def params(self) -> Sequence[Param]:
        return []

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        self._x, self._in_training = x, run.training
        return x

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        if not self._in_training:
            return dy
        dx = run.writable(dy)
        add_signs(dx.reshape(-1), self._x.reshape(-1), dx.dtype.type(self.l1 * run.sample_weight))
        return dx

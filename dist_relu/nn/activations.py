"""Layers without parameters that work on every element or row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from dist_relu.arrays import Array
from dist_relu.kernels import layers as kernels
from dist_relu.nn.layer import PLAIN, Layer, Param, Run, Shape


@final
@dataclass(eq=False)
class ReLU(Layer):
    """y = max(x, 0), of any shape.  The derivative at 0 is 0.  Nair and Hinton (2010)."""

    _y: Array = field(init=False, repr=False)

    def build(self, input_shape: Shape) -> Shape:
        return input_shape

    def params(self) -> Sequence[Param]:
        return []

    def forward(self, x: Array, run: Run = PLAIN) -> Array:
        self._y = run.empty(x.shape, x.dtype)
        kernels.relu(x.reshape(-1), self._y.reshape(-1))
        return self._y

    def backward(self, dy: Array, run: Run = PLAIN, *, wants_dx: bool = True) -> Array:
        dx = run.own(dy)
        kernels.relu_backward(dx.reshape(-1), self._y.reshape(-1))
        return dx


@final
@dataclass(eq=False)
class Softmax(Layer):
    """y = exp(x) / Σ exp(x) over each row.  x, y: (N, K).

    For the output of a model that is used as probabilities; `CrossEntropy` wants the logits before it.
    """

    _y: Array = field(init=False, repr=False)

    def build(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 1:
            raise ValueError(f"Softmax takes samples of one dimension, not of shape {input_shape}.")
        return input_shape

    def params(self) -> Sequence[Param]:
        return []

    def forward(self, x: Array, run: Run = PLAIN) -> Array:
        self._y = run.empty(x.shape, x.dtype)
        kernels.softmax(x, self._y)
        return self._y

    def backward(self, dy: Array, run: Run = PLAIN, *, wants_dx: bool = True) -> Array:
        dx = run.empty(dy.shape, dy.dtype)
        kernels.softmax_backward(dy, self._y, dx)
        return dx

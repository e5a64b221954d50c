"""The fully connected layer.  N batch, C inputs, K units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

from dist_relu.core.arrays import Array, as_rows
from dist_relu.core.checks import check_bool, check_fields, check_int, instance_of
from dist_relu.core.hints import hinting
from dist_relu.kernels.long_sums import sum_rows
from dist_relu.kernels.products import multiply, multiply_by_transpose
from dist_relu.kernels.tiles import AS_IS, BIAS
from dist_relu.nn.initializers import Constant, HeNormal, Initializer
from dist_relu.nn.layer import PLAIN, Layer, Param, Pass, Shape


@final
@hinting({"in_features": "nothing, it is found out", "out_features": "units=..."})
@dataclass(eq=False)
class Dense(Layer):
    """y = x·W + b over the last axis.  x: (N, ..., C), W: (C, K), b: (K,), y: (N, ..., K)."""

    units: int
    bias: bool = True
    init: Initializer = field(default_factory=HeNormal)
    weight: Param = field(init=False, repr=False)
    offset: Param | None = field(init=False, repr=False, default=None)
    _x: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_fields(self, units=check_int, bias=_check_bias, init=instance_of(Initializer))

    def build(self, input_shape: Shape) -> Shape:
        if not input_shape:
            raise ValueError("Dense takes samples of at least one dimension, not single numbers.")
        *others, inputs = input_shape
        self.weight = Param("weight", (inputs, self.units), self.init, inputs, self.units)
        if self.bias:
            self.offset = Param("bias", (self.units,), Constant(0.0), inputs, self.units)
        return (*others, self.units)

    def params(self) -> Sequence[Param]:
        return [self.weight] if self.offset is None else [self.weight, self.offset]

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        return self.multiply(x, run, AS_IS if self.offset is None else BIAS)

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        if self.offset is not None:
            sum_rows(as_rows(dy), self.offset.grad)
        return self.multiply_backward(dy, run, wants_dx=wants_dx)

    def multiply(self, x: Array, run: Pass, epilogue: int) -> Array:
        """x·W, then the bias and ReLU if `epilogue` says so; remembers x."""
        weight = self.weight.value
        self._x = x = np.ascontiguousarray(x, weight.dtype)
        y = run.empty((*x.shape[:-1], self.units), x.dtype)
        bias = weight.reshape(-1) if self.offset is None else self.offset.value
        multiply(as_rows(x), weight, bias, epilogue, as_rows(y))
        return y

    def multiply_backward(self, dz: Array, run: Pass, *, wants_dx: bool) -> Array:
        """The backward of x·W: leaves xᵀ·dz for W and returns dz·Wᵀ."""
        x, rows = as_rows(self._x), as_rows(np.ascontiguousarray(dz))
        run.product(self.weight, x, rows)
        if not wants_dx:
            return dz
        dx = run.empty(self._x.shape, rows.dtype)
        multiply_by_transpose(rows, self.weight.value, as_rows(dx))
        return dx


def _check_bias(name: str, value: Any) -> bool:
    """What is no truth value is most often the number of outputs, after that of inputs."""
    try:
        return check_bool(name, value)
    except TypeError as error:
        raise TypeError(f"{error} Inputs are counted by the layer itself: pass the units alone.") from None

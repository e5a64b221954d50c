"""Neighbouring layers that share a pass over memory.  Users write `Dense, ReLU`; fusing is our business."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from dist_relu.arrays import Array
from dist_relu.nn.activations import Elementwise
from dist_relu.nn.dense import Dense
from dist_relu.nn.layer import PLAIN, Layer, Param, Run, Shape


def fuse(layers: Sequence[Layer]) -> list[Layer]:
    """The same computation, to the bit, in fewer passes; the layers must be built."""
    fused: list[Layer] = []
    for layer in layers:
        if isinstance(layer, Elementwise) and fused and isinstance(fused[-1], Dense) and fused[-1].bias:
            fused[-1] = DenseActivation(fused[-1], layer)
        else:
            fused.append(layer)
    return fused


@final
@dataclass(eq=False)
class DenseActivation(Layer):
    """y = f(x·W + b), bias and f in one pass, forward and backward.  x: (N, C), y: (N, K).

    Where the slope of f follows from its output, f works in place; elsewhere x·W is kept and the bias added again.
    """

    dense: Dense
    activation: Elementwise
    _kept: Array = field(init=False, repr=False)

    def build(self, input_shape: Shape) -> Shape:
        return self.dense.build(input_shape)

    def params(self) -> Sequence[Param]:
        return self.dense.params()

    def forward(self, x: Array, run: Run = PLAIN) -> Array:
        function, arguments = self.activation.function()
        numbers = function.in_dtype(x.dtype, arguments)
        assert self.dense.offset is not None
        bias = self.dense.offset.value
        self._kept = z = self.dense.multiply(x, run)
        rows = z.reshape(-1, self.dense.units)
        if function.keeps_output:
            function.add_bias(rows, bias, *numbers)
            return z
        y = run.empty(z.shape, z.dtype)
        function.add_bias_into(rows, bias, y.reshape(rows.shape), *numbers)
        return y

    def backward(self, dy: Array, run: Run = PLAIN, *, wants_dx: bool = True) -> Array:
        function, arguments = self.activation.function()
        numbers = function.in_dtype(dy.dtype, arguments)
        assert self.dense.offset is not None
        bias, d_bias = self.dense.offset.value, self.dense.offset.grad
        dz = run.own(dy)
        rows, kept = dz.reshape(-1, self.dense.units), self._kept.reshape(-1, self.dense.units)
        if function.keeps_output:
            function.backward_sum_rows(rows, kept, d_bias, *numbers)
        else:
            function.add_bias_backward_sum_rows(rows, kept, bias, d_bias, *numbers)
        return self.dense.multiply_backward(dz, run, wants_dx=wants_dx)

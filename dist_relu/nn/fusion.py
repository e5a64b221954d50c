"""Neighbouring layers that share a pass over memory.  Users write `Dense, ReLU`; fusing is our business."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from dist_relu.arrays import Array
from dist_relu.kernels import layers as kernels
from dist_relu.nn.activations import ReLU
from dist_relu.nn.dense import Dense
from dist_relu.nn.layer import PLAIN, Layer, Param, Run, Shape


def fuse(layers: Sequence[Layer]) -> list[Layer]:
    """The same computation, to the bit, in fewer passes; the layers must be built."""
    fused: list[Layer] = []
    for layer in layers:
        if isinstance(layer, ReLU) and fused and isinstance(fused[-1], Dense) and fused[-1].bias:
            fused[-1] = DenseReLU(fused[-1])
        else:
            fused.append(layer)
    return fused


@final
@dataclass(eq=False)
class DenseReLU(Layer):
    """y = max(x·W + b, 0), bias and ReLU in one pass, forward and backward.  x: (N, C), y: (N, K)."""

    dense: Dense
    _y: Array = field(init=False, repr=False)

    def build(self, input_shape: Shape) -> Shape:
        return self.dense.build(input_shape)

    def params(self) -> Sequence[Param]:
        return self.dense.params()

    def forward(self, x: Array, run: Run = PLAIN) -> Array:
        self._y = self.dense.multiply(x, run)
        assert self.dense.offset is not None
        kernels.add_bias_relu(self._y.reshape(-1, self.dense.units), self.dense.offset.value)
        return self._y

    def backward(self, dy: Array, run: Run = PLAIN, *, wants_dx: bool = True) -> Array:
        dz = run.own(dy)
        assert self.dense.offset is not None
        units = self.dense.units
        kernels.relu_backward_sum_rows(dz.reshape(-1, units), self._y.reshape(-1, units), self.dense.offset.grad)
        return self.dense.multiply_backward(dz, run, wants_dx=wants_dx)

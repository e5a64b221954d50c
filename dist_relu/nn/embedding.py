"""Vectors for symbols."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np

from dist_relu.arrays import Array
from dist_relu.checks import check_fields, check_int, instance_of
from dist_relu.kernels import normalization as kernels
from dist_relu.nn.initializers import Initializer, Normal
from dist_relu.nn.layer import PLAIN, Layer, Param, Run, Shape


@final
@dataclass(eq=False)
class Embedding(Layer):
    """y[..., :] = weight[x[...]]: a learned vector of `units` for each of `symbols` symbols.

    x: (N, ...) whole numbers below `symbols`, of any dtype, as data sets hold them.  y: (N, ..., units).
    """

    symbols: int
    units: int
    init: Initializer = field(default_factory=Normal)
    weight: Param = field(init=False, repr=False)
    _indices: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_fields(self, symbols=check_int, units=check_int, init=instance_of(Initializer))

    def build(self, input_shape: Shape) -> Shape:
        self.weight = Param("weight", (self.symbols, self.units), self.init, self.symbols, self.units)
        return (*input_shape, self.units)

    def params(self) -> Sequence[Param]:
        return [self.weight]

    def forward(self, x: Array, run: Run = PLAIN) -> Array:
        self._indices = x.astype(np.int64).reshape(-1)
        if x.size and not 0 <= self._indices.min() <= self._indices.max() < self.symbols:
            raise ValueError(
                f"Embedding: symbols from {self._indices.min()} to {self._indices.max()}; "
                f"expected 0 to {self.symbols - 1}."
            )
        y = run.empty((*x.shape, self.units), self.weight.value.dtype)
        np.take(self.weight.value, self._indices, axis=0, out=y.reshape(-1, self.units), mode="clip")
        return y

    def backward(self, dy: Array, run: Run = PLAIN, *, wants_dx: bool = True) -> Array:
        """The gradient of whole numbers has no meaning: what is returned is 0."""
        self.weight.grad[...] = 0
        kernels.add_rows_at(self._indices, dy.reshape(-1, self.units), self.weight.grad)
        dx = run.empty(dy.shape[:-1], dy.dtype)
        dx[...] = 0
        return dx

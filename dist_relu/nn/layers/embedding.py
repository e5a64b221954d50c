"""Vectors for symbols."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import numpy.typing as npt

from dist_relu.core.array_checks import element, first_where
from dist_relu.core.arrays import Array, as_rows
from dist_relu.core.checks import check_fields, check_int, instance_of
from dist_relu.errors import DataError
from dist_relu.kernels.copies import fill, look_up
from dist_relu.kernels.long_sums import add_rows_at
from dist_relu.nn.initializers import Initializer, Normal
from dist_relu.nn.layer import PLAIN, Layer, Param, Pass, Shape


@final
@dataclass(eq=False)
class Embedding(Layer):
    """y[..., :] = weight[x[...]]: a learned vector of `units` for each of `symbols` symbols.

    x: (N, ...) whole numbers below `symbols`, of any dtype, as data sets hold them.  y: (N, ..., units).
    Samples travel as the model's dtype: float32 holds symbols below 2^24, float64 more. Raises `DataError`.
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

    def check_symbols(self, x: Array, dtype: npt.DTypeLike) -> None:
        """Raise `DataError` unless x holds whole numbers below `symbols`.

        dtype: in which samples travel. From 2^24 on, float32 can't tell neighbouring symbols apart.
        """
        if not x.size:
            return
        smallest, largest = x.min(), x.max()
        if not (smallest >= 0 and largest < self.symbols):  # so that NaN is none
            raise DataError(
                f"Embedding: symbols from {smallest:.17g} to {largest:.17g}; expected 0 to {self.symbols - 1}."
            )
        if x.dtype.kind == "f" and (fractions := x != np.floor(x)).any():
            where = first_where(fractions)
            raise DataError(
                f"Embedding: {element('x', where)} is {x[where]}; expected whole numbers. Bytes that are read from "
                "files become fractions of 255: save symbols as int32."
            )
        exact = _exact(np.dtype(dtype))
        if largest >= exact:
            raise DataError(
                f"Embedding: {element('x', first_where(x == largest))} is {largest:.17g}, and from {exact} on "
                f"{np.dtype(dtype)} can't tell neighbouring symbols apart. Build the model with dtype float64."
            )

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        weight = self.weight.value
        self._indices = run.empty(x.shape, np.int64).reshape(-1)
        y = run.empty((*x.shape, self.units), weight.dtype)
        try:
            look_up(x.reshape(-1), min(self.symbols, _exact(weight.dtype)), weight, self._indices, as_rows(y))
        except IndexError:
            self.check_symbols(x, weight.dtype)  # says which symbol it was
            raise
        return y

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        """The gradient of whole numbers has no meaning: what is returned is 0."""
        fill(self.weight.grad.reshape(-1), 0.0)
        add_rows_at(self._indices, as_rows(dy), self.weight.grad)
        dx = run.empty(dy.shape[:-1], dy.dtype)
        fill(dx.reshape(-1), 0.0)
        return dx


def _exact(dtype: np.dtype[Any]) -> int:
    """How many whole numbers from 0 on are told apart in a dtype."""
    return 2**24 if dtype == np.float32 else 2**53

"""Layers that give the elements of a sample another shape or order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import final

from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_fields, check_ints
from dist_relu.kernels.copies import transpose
from dist_relu.nn.layer import PLAIN, Layer, Param, Pass, Shape


@final
@dataclass(eq=False)
class Reshape(Layer):
    """Samples of another shape, their elements in the same order.  x: (N, ...), y: (N, *shape).

    Models of images that stand in flat rows begin with it: Reshape((28, 28, 1)).
    """

    shape: Sequence[int]
    _input_shape: Shape = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_fields(self, shape=check_ints)

    def build(self, input_shape: Shape) -> Shape:
        if prod(input_shape) != prod(self.shape):
            raise ValueError(
                f"Reshape({tuple(self.shape)}) can't take samples of shape {input_shape}: they have "
                f"{prod(input_shape)} elements, not {prod(self.shape)}."
            )
        self._input_shape = input_shape
        return tuple(self.shape)

    def params(self) -> Sequence[Param]:
        return []

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        return x.reshape(len(x), *self.shape)

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        return dy.reshape(len(dy), *self._input_shape)


@final
@dataclass(eq=False)
class Flatten(Layer):
    """Samples as rows of numbers.  x: (N, ...), y: (N, elements)."""

    _input_shape: Shape = field(init=False, repr=False)

    def build(self, input_shape: Shape) -> Shape:
        self._input_shape = input_shape
        return (prod(input_shape),)

    def params(self) -> Sequence[Param]:
        return []

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        return x.reshape(len(x), prod(self._input_shape))

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        return dy.reshape(len(dy), *self._input_shape)


@final
@dataclass(eq=False)
class FromNCHW(Layer):
    """Images as other frameworks hold them, (N, C, H, W), to those of all layers here: (N, H, W, C).

    For flat rows in that order: Reshape((3, 32, 32)), FromNCHW().
    """

    def build(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 3:
            raise ValueError(f"FromNCHW takes images of shape (channels, height, width), not {input_shape}.")
        channels, height, width = input_shape
        return height, width, channels

    def params(self) -> Sequence[Param]:
        return []

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        num, channels, height, width = x.shape
        y = run.empty((num, height, width, channels), x.dtype)
        transpose(x.reshape(num, channels, height * width), y.reshape(num, height * width, channels))
        return y

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        num, height, width, channels = dy.shape
        dx = run.empty((num, channels, height, width), dy.dtype)
        transpose(dy.reshape(num, height * width, channels), dx.reshape(num, channels, height * width))
        return dx

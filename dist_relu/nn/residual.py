"""Layers around other layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np

from dist_relu.arrays import Array
from dist_relu.nn.fusion import fuse
from dist_relu.nn.layer import PLAIN, Layer, Param, Run, Shape


@final
@dataclass(eq=False)
class Residual(Layer):
    """y = body(x) + shortcut(x), each one layer after another; an empty shortcut is the identity.

    He et al. (2016), equations 1 and 2. The sum takes no activation: write one behind it.
    """

    body: Sequence[Layer]
    shortcut: Sequence[Layer] = ()
    _body: list[Layer] = field(init=False, repr=False)
    _shortcut: list[Layer] = field(init=False, repr=False)

    def build(self, input_shape: Shape) -> Shape:
        shapes = []
        for name, branch in (("body", self.body), ("shortcut", self.shortcut)):
            shape = input_shape
            for number, layer in enumerate(branch):
                shape = layer.build(shape)
                for param in layer.params():
                    param.name = f"{name}.{number}.{param.name}"
            shapes.append(shape)
        if shapes[0] != shapes[1]:
            raise ValueError(f"Residual: the body gives shape {shapes[0]}, but the shortcut gives {shapes[1]}.")
        self._body, self._shortcut = fuse(self.body), fuse(self.shortcut)
        return shapes[0]

    def params(self) -> Sequence[Param]:
        return [param for branch in (self.body, self.shortcut) for layer in branch for param in layer.params()]

    def forward(self, x: Array, run: Run = PLAIN) -> Array:
        main = side = x
        for layer in self._body:
            main = layer.forward(main, run)
        for layer in self._shortcut:
            side = layer.forward(side, run)
        return np.add(main, side, out=run.empty(main.shape, main.dtype))

    def backward(self, dy: Array, run: Run = PLAIN, *, wants_dx: bool = True) -> Array:
        main = run.empty(dy.shape, dy.dtype)
        np.copyto(main, dy)  # each branch may overwrite what it gets
        side = dy
        for layer in reversed(self._body):
            main = layer.backward(main, run)
        for layer in reversed(self._shortcut):
            side = layer.backward(side, run)
        return np.add(main, side, out=run.empty(side.shape, dy.dtype))

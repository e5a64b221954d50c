"""Layers around other layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_fields
from dist_relu.kernels.copies import copy
from dist_relu.kernels.elementwise import add_branches
from dist_relu.kernels.ordered_sum import add
from dist_relu.nn.boundary import Inside, inside
from dist_relu.nn.layer import PLAIN, Layer, Param, Pass, Shape, check_layers


class Summand(ABC):
    """A layer that can go forward as far as what it adds to a sum, and leaves the gradient of its output as it is."""

    @abstractmethod
    def begin(self, x: Array, run: Pass) -> object:
        """Do what `add_to` can begin with.  x: as in `forward`."""

    @abstractmethod
    def add_to(self, side: Array, relu: bool, y: Array) -> None:
        """y = the output + side, with ReLU behind the sum if `relu`."""


@final
@dataclass(eq=False)
class Residual(Layer):
    """y = body(x) + shortcut(x), each one layer after another; an empty shortcut is the identity.

    He et al. (2016), equations 1 and 2. The sum takes no activation: write one behind it.
    """

    body: Sequence[Layer]
    shortcut: Sequence[Layer] = ()
    _body: list[Inside] = field(init=False, repr=False)
    _shortcut: list[Inside] = field(init=False, repr=False)
    _last: Summand | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_fields(self, body=check_layers, shortcut=check_layers)

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
        self.run_as(self.body, self.shortcut)
        return shapes[0]

    def run_as(self, body: Sequence[Layer], shortcut: Sequence[Layer], last: Summand | None = None) -> None:
        """Compute with other layers that do the same.  last: the last one of the body, where it is a `Summand`."""
        self._body, self._shortcut, self._last = list(map(inside, body)), list(map(inside, shortcut)), last

    def params(self) -> Sequence[Param]:
        return [param for branch in (self.body, self.shortcut) for layer in branch for param in layer.params()]

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        return self.add(x, run, relu=False)

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        return self.backward_of_sum(run.writable(dy), run)

    def add(self, x: Array, run: Pass, *, relu: bool) -> Array:
        """The forward pass, with ReLU behind the sum if `relu`."""
        main = side = x
        for layer in self._body if self._last is None else self._body[:-1]:
            main = layer.forward(main, run)
        if self._last is not None:
            self._last.begin(main, run)
        for layer in self._shortcut:
            side = layer.forward(side, run)
        y = run.empty(side.shape, side.dtype)
        if self._last is not None:
            self._last.add_to(side, relu, y)
        else:
            add_branches(main.reshape(-1), side.reshape(-1), relu, y.reshape(-1))
        return y

    def backward_of_sum(self, dy: Array, run: Pass) -> Array:
        """The gradient of x, from that of the sum, which may be overwritten."""
        main = side = dy
        if self._last is None:
            main = run.empty(dy.shape, dy.dtype)
            copy(dy.reshape(-1), main.reshape(-1))
        for layer in reversed(self._body):
            main = layer.backward(main, run)
        for layer in reversed(self._shortcut):
            side = layer.backward(side, run)
        add(main.reshape(-1), side.reshape(-1))
        return main

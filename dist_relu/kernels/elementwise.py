"""Loops over arrays around a pair of scalars, value and slope, and the pair as one object.

A slope is a function of the input x or of the output y, as its first argument says; so a layer keeps just one of the
two. Where y is enough it is y, since then a layer can compute in place.

`n` elements, `N` samples, `K` units. Arrays of a call have one dtype, and arguments are numbers of it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import kernel, scalar, specialise
from dist_relu.kernels.llvm import prefetch, zeros
from dist_relu.kernels.long_sums import TERMS, end_chain, end_sum

Scalar = Callable[..., float]
Kernel = Callable[..., None]

# What stands for the scalars of an activation in the loops below.


def value(x: float, *arguments: float) -> float:
    """Compute y from x."""
    raise NotImplementedError


def slope(kept: float, *arguments: float) -> float:
    """Compute dy/dx from x or y, whichever was kept."""
    raise NotImplementedError


def kept_of(x: float) -> float:
    """Compute from x what the slope is a function of: x or y."""
    raise NotImplementedError


def of_few_rows(*arrays: Any) -> None:
    """Do for a few rows what the loop that calls it does for many."""
    raise NotImplementedError


def forward(x: Array, y: Array, *arguments: float) -> None:
    """y = value(x); both (n,)."""
    for i in range(x.shape[0]):
        y[i] = value(x[i], *arguments)


@scalar
def times(dy: float, slope: float) -> float:
    """Compute dy · slope, which is 0 wherever the slope is 0, even for an infinite dy.

    Adding 0 changes nothing but -0.0: without it LLVM sees that dy stays as it is where the slope is 1 and stores the
    zeros only, through a mask, which is slow.
    """
    return 0.0 if slope == 0.0 else dy * slope + 0.0


def backward(dy: Array, kept: Array, *arguments: float) -> None:
    """dy = dy · slope(kept) in place; both (n,).

    In place because a loop whose output may overlap another input is not vectorised.
    """
    for i in range(dy.shape[0]):
        dy[i] = times(dy[i], slope(kept[i], *arguments))


def add_bias(z: Array, bias: Array, *arguments: float) -> None:
    """z = value(z + bias) in place; z: (N, K), bias: (K,)."""
    for n in range(z.shape[0]):
        for k in range(z.shape[1]):
            z[n, k] = value(z[n, k] + bias[k], *arguments)


def backward_sum_rows(dy: Array, y: Array, total: Array, *arguments: float) -> None:
    """dy = dy · slope(y) in place, and total = the sum of its rows; dy, y: (N, K), total: (K,)."""
    if dy.shape[0] <= TERMS:
        of_few_rows(dy, y, total, *arguments)
        return
    wide = zeros(total.shape[0], np.float64)
    for start in range(0, dy.shape[0], TERMS):
        of_few_rows(dy[start : start + TERMS], y[start : start + TERMS], total, *arguments)
        end_chain(total, wide)
    end_sum(total, wide)


def backward_sum_few_rows(dy: Array, y: Array, total: Array, *arguments: float) -> None:
    """Do what `backward_sum_rows` does, to so few rows that sums are single chains; apart, to be vectorised."""
    total[:] = 0
    for n in range(dy.shape[0]):
        for k in range(dy.shape[1]):
            dz = times(dy[n, k], slope(y[n, k], *arguments))
            dy[n, k] = dz
            total[k] += dz


def add_bias_into(z: Array, bias: Array, y: Array, *arguments: float) -> None:
    """y = value(z + bias); z, y: (N, K), bias: (K,)."""
    for n in range(z.shape[0]):
        for k in range(z.shape[1]):
            y[n, k] = value(z[n, k] + bias[k], *arguments)


def add_bias_backward_sum_rows(dy: Array, z: Array, bias: Array, total: Array, *arguments: float) -> None:
    """dy = dy · slope(z + bias) in place, and total = the sum of its rows; dy, z: (N, K), bias, total: (K,)."""
    if dy.shape[0] <= TERMS:
        of_few_rows(dy, z, bias, total, *arguments)
        return
    wide = zeros(total.shape[0], np.float64)
    for start in range(0, dy.shape[0], TERMS):
        of_few_rows(dy[start : start + TERMS], z[start : start + TERMS], bias, total, *arguments)
        end_chain(total, wide)
    end_sum(total, wide)


def add_bias_backward_sum_few_rows(dy: Array, z: Array, bias: Array, total: Array, *arguments: float) -> None:
    """Do what `add_bias_backward_sum_rows` does, to so few rows that sums are single chains."""
    total[:] = 0
    for n in range(dy.shape[0]):
        for k in range(dy.shape[1]):
            dz = times(dy[n, k], slope(z[n, k] + bias[k], *arguments))
            dy[n, k] = dz
            total[k] += dz


def gate(x: Array, y: Array) -> None:
    """y = a · value(b) for the halves a, b of the rows of x; x: (N, 2K), y: (N, K)."""
    width = y.shape[1]
    for n in range(y.shape[0]):
        a, b, out = x[n, :width], x[n, width:], y[n]
        for k in range(0, 2 * width, _LINE):
            prefetch(a, 2 * width + k)  # the next row
        for k in range(width):
            out[k] = a[k] * value(b[k])


def gate_backward(dy: Array, x: Array, dx: Array) -> None:
    """dx = the gradient of the rows a, b of `gate` from that of its output; dx: (N, 2K), not x."""
    width = dy.shape[1]
    for n in range(dy.shape[0]):
        d, a, b, da, db = dy[n], x[n, :width], x[n, width:], dx[n, :width], dx[n, width:]
        for k in range(width):
            da[k] = d[k] * value(b[k])
            db[k] = times(d[k] * a[k], slope(kept_of(b[k])))


@scalar
def _same(x: float) -> float:
    return x


_LINE = 16
"""Numbers of a cache line, or of two."""

_NONE: Sequence[Any] = ()


@kernel
def add_to_rows(z: Array, bias: Array) -> None:
    """z += bias in place; z: (N, K), bias: (K,)."""
    for n in range(z.shape[0]):
        for k in range(z.shape[1]):
            z[n, k] += bias[k]


@kernel
def add_branches(main: Array, side: Array, relu: bool, y: Array) -> None:
    """y = main + side, or max(main + side, 0) where `relu`; y is neither of the two."""
    zero = y.dtype.type(0)
    if relu:
        for i in range(y.shape[0]):
            v = main[i] + side[i]
            y[i] = zero if v <= zero else v
    else:
        for i in range(y.shape[0]):
            y[i] = main[i] + side[i]


@kernel
def cut(dy: Array, y: Array) -> None:
    """dy = dy where ReLU let y through, else 0, in place; both (n,)."""
    zero = y.dtype.type(0)
    for i in range(dy.shape[0]):
        d, v = dy[i], y[i]
        dy[i] = zero if v <= zero else d


@final
class Activation:
    """An activation is a pair of value and slope, and has kernels, each compiled when it is first used.

    keeps_output: whether the slope is a function of the output.
    """

    def __init__(self, value: Scalar) -> None:
        self.name = value.__name__
        self._value = scalar(value)

    def slope(self, slope: Scalar) -> None:
        """Take `slope` as the derivative: a function of x or of y, and of the same further arguments."""
        self._slope = scalar(slope)
        self.keeps_output = next(iter(inspect.signature(slope).parameters)) == "y"

    def in_dtype(self, dtype: np.dtype[Any], arguments: Sequence[float]) -> Sequence[Any]:
        """Return the arguments as kernels take them."""
        return [dtype.type(argument) for argument in arguments] if arguments else _NONE

    def specialise(self, loop: Kernel, **loops: Kernel) -> Kernel:
        """Make a kernel of `loop`, in which `value`, `slope` and `kept_of` are those of this activation."""
        scalars = {"value": self._value, "slope": self._slope, "kept_of": self._value if self.keeps_output else _same}
        return specialise(loop, f"{self.name}_{loop.__name__}", scalars | loops)

    @cached_property
    def forward(self) -> Kernel:
        return self.specialise(forward)

    @cached_property
    def backward(self) -> Kernel:
        return self.specialise(backward)

    @cached_property
    def add_bias(self) -> Kernel:
        return self.specialise(add_bias)

    @cached_property
    def backward_sum_rows(self) -> Kernel:
        return self.specialise(backward_sum_rows, of_few_rows=self.specialise(backward_sum_few_rows))

    @cached_property
    def add_bias_into(self) -> Kernel:
        return self.specialise(add_bias_into)

    @cached_property
    def add_bias_backward_sum_rows(self) -> Kernel:
        of_few_rows = self.specialise(add_bias_backward_sum_few_rows)
        return self.specialise(add_bias_backward_sum_rows, of_few_rows=of_few_rows)

    @cached_property
    def gate(self) -> Kernel:
        return self.specialise(gate)

    @cached_property
    def gate_backward(self) -> Kernel:
        return self.specialise(gate_backward)

"""Activation layers that are more than a function of one number.

All work along the last axis of their input, (N, ..., K), which holds the channels of an image or the units of a dense
layer.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_fields, check_float, check_int
from dist_relu.kernels import activations, row_activations
from dist_relu.kernels.copies import fill
from dist_relu.kernels.elementwise import Activation
from dist_relu.nn.initializers import Initializer
from dist_relu.nn.layer import PLAIN, Layer, Param, Pass, Shape
from dist_relu.nn.layers.activations import check_arguments_of


@final
@dataclass(eq=False)
class PReLU(Layer):
    """x where x > 0, else weight · x, with a learned weight.  He et al. (2015).

    Its slope at 0 and at NaN is the weight.

    num_parameters: 1 for a weight that all share, or K for one of each channel.  init: the weights' first value.
    """

    num_parameters: int = 1
    init: float = 0.25
    weight: Param = field(init=False, repr=False)
    _x: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_fields(self, num_parameters=check_int, init=check_float)

    def build(self, input_shape: Shape) -> Shape:
        if self.num_parameters not in (1, *input_shape[-1:]):
            raise ValueError(
                f"PReLU(num_parameters={self.num_parameters}) does not suit samples of shape {input_shape}: "
                "expected 1, or the length of the last axis."
            )
        self.weight = Param("weight", (self.num_parameters,), _Constant(self.init), 1, 1)
        return input_shape

    def params(self) -> Sequence[Param]:
        return [self.weight]

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        self._x = x
        y = run.empty(x.shape, x.dtype)
        row_activations.prelu(x.reshape(-1), self.weight.value, y.reshape(-1))
        return y

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        dx = run.writable(dy)
        row_activations.prelu_backward(dx.reshape(-1), self._x.reshape(-1), self.weight.value, self.weight.grad)
        return dx


@final
@dataclass(frozen=True)
class _Constant(Initializer):
    value: float

    def draw(self, shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
        return np.full(shape, self.value)


@final
@dataclass(eq=False)
class RReLU(Layer):
    """x where x > 0, else slope · x; in training each slope is drawn from U(lower, upper), else it is their mean.

    Its slope at 0 and at NaN is that of numbers below 0.

    Xu et al. (2015).
    """

    lower: float = 1 / 8
    upper: float = 1 / 3
    _factors: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_arguments_of(self, "rrelu")

    def build(self, input_shape: Shape) -> Shape:
        return input_shape

    def params(self) -> Sequence[Param]:
        return []

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        self._factors = run.empty(x.shape, x.dtype)
        if run.training:
            run.uniform(self._factors)
        else:
            fill(self._factors.reshape(-1), 0.5)
        y = run.empty(x.shape, x.dtype)
        lower, width = x.dtype.type(self.lower), x.dtype.type(self.upper - self.lower)
        row_activations.rrelu(x.reshape(-1), self._factors.reshape(-1), y.reshape(-1), lower, width)
        return y

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        dx = run.writable(dy)
        row_activations.rrelu_backward(dx.reshape(-1), self._factors.reshape(-1))
        return dx


@final
@dataclass(eq=False)
class CReLU(Layer):
    """max(x, 0) and max(-x, 0), side by side: (N, ..., K) to (N, ..., 2K).  Shang et al. (2016).

    The slopes of both at 0 are 0, at NaN 1 and -1.
    """

    _x: Array = field(init=False, repr=False)

    def build(self, input_shape: Shape) -> Shape:
        return *input_shape[:-1], 2 * input_shape[-1]

    def params(self) -> Sequence[Param]:
        return []

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        self._x = x
        y = run.empty((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
        row_activations.crelu(_rows(x), _rows(y))
        return y

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        dx = run.empty(self._x.shape, dy.dtype)
        row_activations.crelu_backward(_rows(dy), _rows(self._x), _rows(dx))
        return dx


@final
@dataclass(eq=False)
class Softmax(Layer):
    """exp(x) / Σ exp(x), the sum along the last axis.

    For the output of a model that is used as probabilities; `CrossEntropy` wants the logits before it.
    """

    _y: Array = field(init=False, repr=False)

    def build(self, input_shape: Shape) -> Shape:
        return input_shape

    def params(self) -> Sequence[Param]:
        return []

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        self._y = run.empty(x.shape, x.dtype)
        row_activations.softmax(_rows(x), _rows(self._y))
        return self._y

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        dx = run.writable(dy)
        row_activations.softmax_backward(_rows(dx), _rows(self._y))
        return dx


@final
@dataclass(eq=False)
class LogSoftmax(Layer):
    """x - ln Σ exp(x), the sum along the last axis."""

    _y: Array = field(init=False, repr=False)

    def build(self, input_shape: Shape) -> Shape:
        return input_shape

    def params(self) -> Sequence[Param]:
        return []

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        self._y = run.empty(x.shape, x.dtype)
        row_activations.log_softmax(_rows(x), _rows(self._y))
        return self._y

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        dx = run.writable(dy)
        row_activations.log_softmax_backward(_rows(dx), _rows(self._y))
        return dx


class Gate(Layer):
    """a · f(b) for the halves a, b of the last axis: (N, ..., 2K) to (N, ..., K).

    The final layers below name f.
    """

    _x: Array

    @abstractmethod
    def function(self) -> Activation:
        """f."""

    def build(self, input_shape: Shape) -> Shape:
        if input_shape[-1] % 2:
            raise ValueError(
                f"{type(self).__name__} takes samples apart into halves, but their last axis has {input_shape[-1]} "
                "elements. Give the layer before it an even number of units."
            )
        return *input_shape[:-1], input_shape[-1] // 2

    def params(self) -> Sequence[Param]:
        return []

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        self._x = x
        y = run.empty((*x.shape[:-1], x.shape[-1] // 2), x.dtype)
        self.function().gate(_rows(x), _rows(y))
        return y

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        dx = run.empty(self._x.shape, dy.dtype)
        self.function().gate_backward(_rows(dy), _rows(self._x), _rows(dx))
        return dx


@final
@dataclass(eq=False)
class GLU(Gate):
    """a σ(b).  Dauphin et al. (2017).

    Where one half is NaN, the slopes of both are.
    """

    def function(self) -> Activation:
        return activations.sigmoid


@final
@dataclass(eq=False)
class ReGLU(Gate):
    """a max(b, 0).  Shazeer (2020).

    The slope by b at 0 is 0, at NaN a.
    """

    def function(self) -> Activation:
        return activations.relu


@final
@dataclass(eq=False)
class SwiGLU(Gate):
    """a silu(b).  Shazeer (2020).

    Where one half is NaN, the slopes of both are.
    """

    def function(self) -> Activation:
        return activations.silu


def _rows(x: Array) -> Array:
    """x (N, ..., K) as a contiguous matrix with rows along its last axis."""
    return np.ascontiguousarray(x).reshape(-1, x.shape[-1])

"""Neighbouring layers that share a pass over memory.  Users write `Dense, ReLU`; fusing is our business.

What goes into their activation is never in memory as a whole, so these layers go another way where an observer of the
pass wants to see it; the outputs are the same to the bit.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np
import numpy.typing as npt

from dist_relu.core.arrays import Array, as_rows
from dist_relu.core.guards import is_ours
from dist_relu.kernels import activations, pooling
from dist_relu.kernels.elementwise import cut
from dist_relu.kernels.tiles import AS_IS, BIAS, BIAS_RELU
from dist_relu.nn.layer import PLAIN, Layer, Param, Pass, Shape
from dist_relu.nn.layers.activations import Elementwise, ReLU
from dist_relu.nn.layers.convolution import Conv2d
from dist_relu.nn.layers.dense import Dense
from dist_relu.nn.layers.normalization import BatchNorm
from dist_relu.nn.layers.parallel import Parallel
from dist_relu.nn.layers.pooling import MaxPool2d
from dist_relu.nn.layers.residual import Residual, Summand
from dist_relu.nn.layers.row_activations import CReLU, PReLU, RReLU

ACTIVATIONS = Elementwise, PReLU, RReLU, CReLU
"""Layers whose input is what goes into an activation of one number."""

See = Callable[[Array, Array | None], object]
"""`PreactivationObserver.see_preactivations` for one layer."""


class ActivationFused(Layer):
    """A layer that ends with an activation."""

    @abstractmethod
    def forward_observed(self, x: Array, run: Pass, see: See) -> Array:
        """`forward`, while `see` gets what goes into the activation."""


def fuse(layers: Sequence[Layer]) -> list[Layer]:
    """Find layers that compute the same, to the bit, in fewer passes; those that are given must be built."""
    fused: list[Layer] = []
    for layer in layers:
        if isinstance(layer, Residual):
            body = fuse(layer.body)
            last = body[-1] if body else None
            layer.run_as(body, fuse(layer.shortcut), last if isinstance(last, ConvBatchNorm) else None)
        if isinstance(layer, Parallel):
            layer.run_as([fuse(branch) for branch in layer.branches])
        if not is_ours(type(layer)):  # a child of one of these, too, may compute something else
            fused.append(layer)
            continue
        match fused[-1] if fused and is_ours(type(fused[-1])) else None, layer:
            case Dense(bias=True) as dense, Elementwise():
                fused[-1] = DenseActivation(dense, layer)
            case Conv2d(bias=True) as conv, ReLU():
                fused[-1] = ConvReLU(conv)
            case ConvReLU(conv=conv), MaxPool2d(halves=True):
                fused[-1] = ConvReLUPool(conv)
            case Conv2d() as conv, BatchNorm():
                fused[-1] = ConvBatchNorm(conv, layer)
            case ConvBatchNorm() as normalised, ReLU():
                fused[-1] = ConvBatchNormReLU(normalised)
            case BatchNorm() as norm, ReLU():
                fused[-1] = BatchNormReLU(norm)
            case Residual() as residual, ReLU():
                fused[-1] = ResidualReLU(residual)
            case _:
                fused.append(layer)
    return fused


def last_layers(layers: Sequence[Layer]) -> list[int]:
    """The number of the last layer in each pass; the layers must be built, and not be computed with afterwards."""
    num_passes = [len(fuse(layers[:stop])) for stop in range(1, len(layers) + 1)] + [-1]
    return [i for i in range(len(layers)) if num_passes[i] != num_passes[i + 1]]


def _apply_relu(z: Array) -> None:
    """z = ReLU(z), with the bits of the pass that computes z and it at once."""
    rows = as_rows(z)
    activations.relu.add_bias(rows, np.zeros(rows.shape[1], z.dtype))


@final
@dataclass(eq=False)
class DenseActivation(ActivationFused):
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

    @property
    def _bias(self) -> Param:
        assert self.dense.offset is not None
        return self.dense.offset

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        if isinstance(self.activation, ReLU):
            self._kept = self.dense.multiply(x, run, BIAS_RELU)
            return self._kept
        return self._activate(self.dense.multiply(x, run, AS_IS), run)

    def forward_observed(self, x: Array, run: Pass, see: See) -> Array:
        z = self.dense.multiply(x, run, AS_IS)
        see(z, self._bias.value)
        return self._activate(z, run)

    def _activate(self, z: Array, run: Pass) -> Array:
        """f(z + b), in place where that is possible."""
        function, arguments = self.activation.function()
        self._kept, bias = z, self._bias.value
        rows, numbers = as_rows(z), function.in_dtype(z.dtype, arguments)
        if function.keeps_output:
            function.add_bias(rows, bias, *numbers)
            return z
        y = run.empty(z.shape, z.dtype)
        function.add_bias_into(rows, bias, as_rows(y), *numbers)
        return y

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        function, arguments = self.activation.function()
        numbers = function.in_dtype(dy.dtype, arguments)
        bias, d_bias = self._bias.value, self._bias.grad
        dz = run.writable(dy)
        rows, kept = as_rows(dz), as_rows(self._kept)
        if function.keeps_output:
            function.backward_sum_rows(rows, kept, d_bias, *numbers)
        else:
            function.add_bias_backward_sum_rows(rows, kept, bias, d_bias, *numbers)
        return self.dense.multiply_backward(dz, run, wants_dx=wants_dx)


@final
@dataclass(eq=False)
class ConvReLU(ActivationFused):
    """Convolution, then bias and ReLU in one pass over what is in the cache.  x: (N, H, W, C), y: (N, I, J, K)."""

    conv: Conv2d
    _y: Array = field(init=False, repr=False)

    def build(self, input_shape: Shape) -> Shape:
        return self.conv.build(input_shape)

    def params(self) -> Sequence[Param]:
        return self.conv.params()

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        self._y = run.empty((len(x), *self.conv.output_shape), x.dtype)
        for piece in self.conv.pieces(x, run):
            self.conv.multiply(piece, self._y[piece], BIAS_RELU)
        return self._y

    def forward_observed(self, x: Array, run: Pass, see: See) -> Array:
        self._y = run.empty((len(x), *self.conv.output_shape), x.dtype)
        for piece in self.conv.pieces(x, run):
            y = self._y[piece]
            self.conv.multiply(piece, y, BIAS)
            see(y, None)
            _apply_relu(y)
        return self._y

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        dz = run.writable(dy)
        dx = self.conv.begin_backward(run, wants_dx=wants_dx)
        for piece in self.conv.pieces_of_last():
            activations.relu.backward(dz[piece].reshape(-1), self._y[piece].reshape(-1))
            self.conv.multiply_backward(piece, dz[piece], dx, run)
        return dz if dx is None else dx


@final
@dataclass(eq=False)
class ConvReLUPool(ActivationFused):
    """Convolution, then bias, ReLU and the maximum of squares of 2 x 2 in one pass.

    x: (N, H, W, C), y: (N, I // 2, J // 2, K).  The large array between them is in the cache only, never in memory.
    """

    conv: Conv2d
    _choice: Array = field(init=False, repr=False)

    def build(self, input_shape: Shape) -> Shape:
        height, width, channels = self.conv.build(input_shape)
        return height // 2, width // 2, channels

    def params(self) -> Sequence[Param]:
        return self.conv.params()

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        return self._pool(x, run, None)

    def forward_observed(self, x: Array, run: Pass, see: See) -> Array:
        return self._pool(x, run, see)

    def _pool(self, x: Array, run: Pass, see: See | None) -> Array:
        height, width, channels = self.conv.output_shape
        shape = (len(x), height // 2, width // 2, channels)
        y, self._choice = run.empty(shape, x.dtype), run.empty(shape, x.dtype)
        assert self.conv.offset is not None
        bias = self.conv.offset.value
        for piece in self.conv.pieces(x, run):
            z = self._scratch(piece, x.dtype, run)
            self.conv.multiply(piece, z, AS_IS)
            if see:
                see(z, bias)
            pooling.add_bias_relu_max_pool_2x2(z, bias, y[piece], self._choice[piece])
        return y

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        dx = self.conv.begin_backward(run, wants_dx=wants_dx)
        for piece in self.conv.pieces_of_last():
            dz = self._scratch(piece, dy.dtype, run)
            pooling.max_pool_2x2_backward(dy[piece], self._choice[piece], dz)
            self.conv.multiply_backward(piece, dz, dx, run)
        return dy if dx is None else dx

    def _scratch(self, piece: slice, dtype: npt.DTypeLike, run: Pass) -> Array:
        return run.scratch("convolution output", (piece.stop - piece.start, *self.conv.output_shape), dtype)


@final
@dataclass(eq=False)
class ConvBatchNorm(Layer, Summand):
    """Convolution and normalisation of what it gives, while that is in the cache.  x: (N, H, W, C), y: (N, I, J, K)."""

    conv: Conv2d
    norm: BatchNorm

    def build(self, input_shape: Shape) -> Shape:
        return self.norm.build(self.conv.build(input_shape))

    def params(self) -> Sequence[Param]:
        return [*self.conv.params(), *self.norm.params()]

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        return self.normalise(x, run, relu=False)

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        return self.normalise_backward(dy, run, relu=False, wants_dx=wants_dx)

    def normalise(self, x: Array, run: Pass, *, relu: bool) -> Array:
        """The forward pass, with ReLU behind it if `relu`."""
        z = self.begin(x, run)
        y = run.empty(z.shape, z.dtype)
        self.norm.scale(relu, y)
        return y

    def begin(self, x: Array, run: Pass) -> Array:
        z = run.empty((len(x), *self.conv.output_shape), x.dtype)
        self.norm.begin(z, run)
        for piece in self.conv.pieces(x, run):
            self.conv.multiply(piece, z[piece], AS_IS if self.conv.offset is None else BIAS)
            self.norm.look_at(piece.stop)
        self.norm.end(run)
        return z

    def add_to(self, side: Array, relu: bool, y: Array) -> None:
        self.norm.scale_and_add(side, relu, y)

    def normalise_backward(self, dy: Array, run: Pass, *, relu: bool, wants_dx: bool) -> Array:
        """The backward pass of `normalise`, which leaves dy as it is."""
        self.norm.begin_backward(dy, run, relu=relu)
        dx = self.conv.begin_backward(run, wants_dx=wants_dx)
        for piece in self.conv.pieces_of_last():
            dz = run.scratch("convolution output", (piece.stop - piece.start, *self.conv.output_shape), dy.dtype)
            self.norm.scale_backward(piece, dy[piece], relu, dz)
            self.conv.multiply_backward(piece, dz, dx, run)
        return dy if dx is None else dx


@final
@dataclass(eq=False)
class ConvBatchNormReLU(ActivationFused):
    """Convolution, and normalisation with ReLU in one pass.  x: (N, H, W, C), y: (N, I, J, K)."""

    normalised: ConvBatchNorm

    def build(self, input_shape: Shape) -> Shape:
        return self.normalised.build(input_shape)

    def params(self) -> Sequence[Param]:
        return self.normalised.params()

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        return self.normalised.normalise(x, run, relu=True)

    def forward_observed(self, x: Array, run: Pass, see: See) -> Array:
        y = self.normalised.normalise(x, run, relu=False)
        see(y, None)
        _apply_relu(y)
        return y

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        return self.normalised.normalise_backward(dy, run, relu=True, wants_dx=wants_dx)


@final
@dataclass(eq=False)
class BatchNormReLU(ActivationFused):
    """Normalisation and ReLU in one pass; x, y: (N, ..., C)."""

    norm: BatchNorm

    def build(self, input_shape: Shape) -> Shape:
        return self.norm.build(input_shape)

    def params(self) -> Sequence[Param]:
        return self.norm.params()

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        return self.norm.normalise(x, run, relu=True)

    def forward_observed(self, x: Array, run: Pass, see: See) -> Array:
        y = self.norm.normalise(x, run, relu=False)
        see(y, None)
        _apply_relu(y)
        return y

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        return self.norm.normalise_backward(dy, run, relu=True, wants_dx=wants_dx)


@final
@dataclass(eq=False)
class ResidualReLU(ActivationFused):
    """The sum of two branches and ReLU in one pass."""

    residual: Residual
    _y: Array = field(init=False, repr=False)

    def build(self, input_shape: Shape) -> Shape:
        return self.residual.build(input_shape)

    def params(self) -> Sequence[Param]:
        return self.residual.params()

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        self._y = self.residual.add(x, run, relu=True)
        return self._y

    def forward_observed(self, x: Array, run: Pass, see: See) -> Array:
        self._y = self.residual.add(x, run, relu=False)
        see(self._y, None)
        _apply_relu(self._y)
        return self._y

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        side = run.writable(dy)
        cut(side.reshape(-1), self._y.reshape(-1))
        return self.residual.backward_of_sum(side, run)

"""Convolution of images.  N batch, H W height and width, C channels, K filters, I J height and width of the output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_bool, check_fields, check_int, instance_of
from dist_relu.core.hints import hinting
from dist_relu.kernels import convolution as kernels
from dist_relu.kernels.activations import relu
from dist_relu.kernels.copies import fill
from dist_relu.kernels.elementwise import add_to_rows
from dist_relu.kernels.long_sums import TERMS, end_chain, end_sum, sum_rows
from dist_relu.kernels.ordered_sum import add
from dist_relu.kernels.tiles import AS_IS, BIAS, BIAS_RELU
from dist_relu.kernels.windows import Windows
from dist_relu.nn.initializers import Constant, HeNormal, Initializer
from dist_relu.nn.layer import PLAIN, Layer, Param, Pass, Shape
from dist_relu.nn.layers.correlation import Convolution, image_rows
from dist_relu.nn.layers.windows import Padding, Size, check_padding, check_size, image_shape, windows
from dist_relu.nn.layers.winograd import WinogradConvolution, suits

_PIECE_SIZE = 192 * 1024
"""Elements of input and output that stay in the second-level cache, 1 MiB, beside the filters."""


@final
@hinting({"in_channels": "nothing, it is found out", "out_channels": "channels=..."})
@dataclass(eq=False)
class Conv2d(Layer):
    """Cross-correlation with K filters, and a bias.  x: (N, H, W, C), W: (kh, kw, C / groups, K), y: (N, I, J, K).

    channels: K.  kernel_size, stride, dilation: a number, or (height, width).
    padding: "same" (outputs of ⌈H / stride⌉ x ⌈W / stride⌉; what is odd goes to the bottom and to the right), "valid"
    (none), a number, or (height, width).
    groups: filters are cut into as many groups, each of which sees its part of the channels; `groups=C` is depthwise.

    A few images are done at a time, so that layers fused with this one find them in the cache.
    """

    channels: int
    kernel_size: Size
    stride: Size = 1
    padding: Padding = "same"
    dilation: Size = 1
    groups: int = 1
    bias: bool = True
    init: Initializer = field(default_factory=HeNormal)
    weight: Param = field(init=False, repr=False)
    offset: Param | None = field(init=False, repr=False, default=None)
    output_shape: Shape = field(init=False, repr=False)
    _windows: Windows = field(init=False, repr=False)
    _plan: Convolution | WinogradConvolution | None = field(init=False, repr=False, default=None)
    _channels_in: int = field(init=False, repr=False)
    _is_depthwise: bool = field(init=False, repr=False)
    _images_per_piece: int = field(init=False, repr=False)
    _x: Array = field(init=False, repr=False)
    _packed: list[Array] = field(init=False, repr=False)  # filters, as kernels take them
    _wide: list[Array] = field(init=False, repr=False)  # of the gradients of all parameters

    def __post_init__(self) -> None:
        check_fields(
            self,
            channels=check_int,
            kernel_size=check_size,
            stride=check_size,
            padding=check_padding,
            dilation=check_size,
            groups=check_int,
            bias=check_bool,
            init=instance_of(Initializer),
        )

    def build(self, input_shape: Shape) -> Shape:
        channels = image_shape("Conv2d", input_shape)[2]
        if channels % self.groups or self.channels % self.groups:
            raise ValueError(
                f"Conv2d(groups={self.groups}) can't cut {channels} channels and {self.channels} filters into equal "
                "groups; both must be multiples."
            )
        self._windows = w = windows("Conv2d", input_shape, self.kernel_size, self.stride, self.padding, self.dilation)
        shape = (w.kernel_h, w.kernel_w, channels // self.groups, self.channels)
        fan_in, fan_out = prod(shape[:3]), w.kernel_h * w.kernel_w * self.channels // self.groups
        self.weight = Param("weight", shape, self.init, fan_in, fan_out)
        if self.bias:
            self.offset = Param("bias", (self.channels,), Constant(0.0), fan_in, fan_out)
        self._plan, self._channels_in = None, channels
        self._is_depthwise = self.groups == self.channels == channels > 1
        self.output_shape = (w.out_height, w.out_width, self.channels)
        image_size = w.height * w.width * channels + w.out_height * w.out_width * self.channels
        self._images_per_piece = max(_PIECE_SIZE // image_size, 1)
        return self.output_shape

    def params(self) -> Sequence[Param]:
        return [self.weight] if self.offset is None else [self.weight, self.offset]

    def _convolution(self) -> Convolution | WinogradConvolution:
        """Made at the first pass: it takes time and memory for each element of the kernel, and a file may lie."""
        if self._plan is None:
            shape = self._windows, self._channels_in, self.channels, self.groups
            self._plan = WinogradConvolution(self._windows) if self.is_winograd else Convolution(*shape)
        return self._plan

    @property
    def is_winograd(self) -> bool:
        """Whether it is computed by Winograd's way, which takes fewer multiplications."""
        return suits(self._windows, self._channels_in, self.channels, self.groups, self.weight.value.dtype)

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        y = run.empty((len(x), *self.output_shape), x.dtype)
        self.pieces(x, run)
        self.multiply(slice(len(x)), y, AS_IS if self.offset is None else BIAS)
        return y

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        dx = self.begin_backward(run, wants_dx=wants_dx)
        for piece in self.pieces_of_last():
            self.multiply_backward(piece, dy[piece], dx, run)
        return dy if dx is None else dx

    def pieces(self, x: Array, run: Pass) -> list[slice]:
        """Begin the pass over a batch, and cut it into the few images that are done at a time."""
        self._x, weight = x, self.weight.value
        self._packed = [self._repeated(run)] if self._is_depthwise else [self._convolution().pack(weight, run)]
        return self.pieces_of_last()

    def pieces_of_last(self) -> list[slice]:
        """The pieces of the last batch once more."""
        num, at_once = len(self._x), self._images_per_piece
        return [slice(start, min(start + at_once, num)) for start in range(0, num, at_once)]

    def multiply(self, piece: slice, z: Array, epilogue: int) -> None:
        """z = the images of a piece convolved, then the bias and ReLU if `epilogue` says so.  z: (n, I, J, K)."""
        x, [packed] = self._x[piece], self._packed
        bias = packed.reshape(-1) if self.offset is None else self.offset.value
        if self._is_depthwise:
            kernels.depthwise(image_rows(x), packed, self._windows, self.channels, image_rows(z))
            rows = z.reshape(-1, self.channels)
            if epilogue == BIAS:
                add_to_rows(rows, bias)
            elif epilogue == BIAS_RELU:
                relu.add_bias(rows, bias)
        else:
            self._convolution().forward(x, packed, bias, epilogue, z)

    def begin_backward(self, run: Pass, *, wants_dx: bool) -> Array | None:
        """Begin gradients that `multiply_backward` adds to; returns room for that of x, if it is wanted."""
        params, weight = self.params(), self.weight.value
        is_long = len(self._x) > TERMS
        names = [f"convolution sums {number}" for number in range(len(params))] if is_long else []
        sizes = [param.grad.size for param in params]
        self._wide = [run.scratch(name, (size,), np.float64) for name, size in zip(names, sizes, strict=False)]
        for array in [*(param.grad.reshape(-1) for param in params), *self._wide]:
            fill(array, 0.0)
        if self._is_depthwise:
            self._packed = [self._repeated(run)]
        elif wants_dx:
            self._packed = self._convolution().pack_transposed(weight, run)
        return run.empty(self._x.shape, self._x.dtype) if wants_dx else None

    def multiply_backward(self, piece: slice, dz: Array, dx: Array | None, run: Pass) -> None:
        """Add the gradients of bias and filters from a piece; write those of its images into their rows of dx.

        dz: (n, I, J, K), the gradient of the piece's `multiply`.  dx: (N, H, W, C), or None where it is not wanted.
        """
        x, grad, w = self._x[piece], self.weight.grad, self._windows
        if self.offset is not None:
            total = run.scratch("convolution bias", (self.channels,), dz.dtype)
            sum_rows(dz.reshape(-1, self.channels), total)
            add(self.offset.grad, total)
        if self._is_depthwise:
            rows, dz_rows, [repeated] = image_rows(x), image_rows(dz), self._packed
            if dx is not None:
                kernels.depthwise_backward_x(dz_rows, repeated, w, self.channels, image_rows(dx[piece]))
            d_repeated = run.scratch("gradient of depthwise filters", repeated.shape, repeated.dtype)
            kernels.depthwise_backward_weight(rows, dz_rows, w, self.channels, d_repeated)
            kernels.add_over_pixels(d_repeated, grad)
        else:
            if dx is not None:
                self._convolution().backward_x(dz, self._packed, dx[piece])
            self._convolution().add_backward_weight(x, dz, grad)
        self._end_chains(piece)

    def _end_chains(self, piece: slice) -> None:
        """Let gradients be no chain of too many images, see `dist_relu.kernels.long_sums`."""
        is_last = piece.stop == len(self._x)
        if self._wide and (is_last or piece.start // TERMS != piece.stop // TERMS):
            for param, wide in zip(self.params(), self._wide, strict=True):
                (end_sum if is_last else end_chain)(param.grad.reshape(-1), wide)

    def _repeated(self, run: Pass) -> Array:
        """Depthwise filters side by side for every pixel of a row of the output: (kh, kw, J K)."""
        w, weight = self._windows, self.weight.value
        shape = w.kernel_h, w.kernel_w, w.out_width * self.channels
        repeated = run.scratch("depthwise filters", shape, weight.dtype)
        kernels.repeat_over_pixels(weight, repeated)
        return repeated

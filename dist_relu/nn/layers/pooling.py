"""Pooling of images.  N batch, H W height and width, C channels, I J height and width of the output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_fields, optional
from dist_relu.kernels import pooling as kernels
from dist_relu.kernels.windows import Windows
from dist_relu.nn.layer import PLAIN, Layer, Param, Pass, Shape
from dist_relu.nn.layers.windows import Size, check_margin, check_size, image_shape, pair, windows


@final
@dataclass(eq=False)
class MaxPool2d(Layer):
    """The maximum of every window.  x: (N, H, W, C), y: (N, I, J, C).

    stride: by default the size of a window.  padding: at most half a window; it never is the maximum.
    Of equal values the first one gets the gradient; NaN is larger than all.
    """

    kernel_size: Size
    stride: Size | None = None
    padding: Size = 0
    _windows: Windows = field(init=False, repr=False)
    _x_shape: Shape = field(init=False, repr=False)
    _choice: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_fields(self, kernel_size=check_size, stride=optional(check_size), padding=check_margin)

    @property
    def halves(self) -> bool:
        """Whether the windows are squares of 2 x 2 side by side."""
        w = self._windows
        return (w.kernel_h, w.kernel_w, w.stride_h, w.stride_w, w.top, w.left) == (2, 2, 2, 2, 0, 0)

    def build(self, input_shape: Shape) -> Shape:
        self._windows = w = _pooling_windows("MaxPool2d", input_shape, self.kernel_size, self.stride, self.padding)
        return w.out_height, w.out_width, input_shape[2]

    def params(self) -> Sequence[Param]:
        return []

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        w = self._windows
        shape = (len(x), w.out_height, w.out_width, x.shape[3])
        y, self._choice, self._x_shape = run.empty(shape, x.dtype), run.empty(shape, x.dtype), x.shape
        kernels.max_pool(x, w, y, self._choice)
        return y

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        dx = run.empty(self._x_shape, dy.dtype)
        if self.halves:
            kernels.max_pool_2x2_backward(dy, self._choice, dx)
        else:
            kernels.max_pool_backward(dy, self._choice, self._windows, dx)
        return dx


@final
@dataclass(eq=False)
class AvgPool2d(Layer):
    """The mean of every window, padding counted as 0.  x: (N, H, W, C), y: (N, I, J, C).

    stride: by default the size of a window.  padding: at most half a window.
    """

    kernel_size: Size
    stride: Size | None = None
    padding: Size = 0
    _windows: Windows = field(init=False, repr=False)
    _x_shape: Shape = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_fields(self, kernel_size=check_size, stride=optional(check_size), padding=check_margin)

    def build(self, input_shape: Shape) -> Shape:
        self._windows = w = _pooling_windows("AvgPool2d", input_shape, self.kernel_size, self.stride, self.padding)
        return w.out_height, w.out_width, input_shape[2]

    def params(self) -> Sequence[Param]:
        return []

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        self._x_shape = x.shape
        y = run.empty((len(x), self._windows.out_height, self._windows.out_width, x.shape[3]), x.dtype)
        kernels.average_pool(x, self._windows, y)
        return y

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        dx = run.empty(self._x_shape, dy.dtype)
        kernels.average_pool_backward(dy, self._windows, dx)
        return dx


@final
@dataclass(eq=False)
class GlobalAvgPool2d(Layer):
    """The mean of every channel over the image.  x: (N, H, W, C), y: (N, C)."""

    _x_shape: Shape = field(init=False, repr=False)

    def build(self, input_shape: Shape) -> Shape:
        return image_shape("GlobalAvgPool2d", input_shape)[2:]

    def params(self) -> Sequence[Param]:
        return []

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        self._x_shape = x.shape
        num_pixels, channels = x.shape[1] * x.shape[2], x.shape[3]
        y = run.empty((len(x), channels), x.dtype)
        kernels.average_images(x.reshape(len(x), num_pixels, channels), y)
        return y

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        dx = run.empty(self._x_shape, dy.dtype)
        kernels.average_images_backward(dy, dx.reshape(len(dx), dx.shape[1] * dx.shape[2], dx.shape[3]))
        return dx


def _pooling_windows(layer: str, input_shape: Shape, kernel_size: Size, stride: Size | None, padding: Size) -> Windows:
    kernel, margin = pair(kernel_size), pair(padding)
    if any(2 * m > k for m, k in zip(margin, kernel, strict=True)):
        raise ValueError(f"{layer}(padding={padding!r}): at most half of kernel_size={kernel_size!r}.")
    return windows(layer, input_shape, kernel, kernel if stride is None else stride, margin)

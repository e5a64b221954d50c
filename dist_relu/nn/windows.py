"""What convolution and pooling share: the shapes of windows, checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from dist_relu.kernels.windows import Windows
from dist_relu.nn.layer import Shape

Size = int | Sequence[int]
"""A number for height and width, or one for each."""

Padding = Literal["same", "valid"] | Size
"""Zeros around an image: as many as it takes for ⌈size / stride⌉ outputs, none, or a number on each side."""


def pair(name: str, size: object, least: int) -> tuple[int, int]:
    """(height, width) of an argument; raises ValueError for anything but one or two numbers of at least `least`."""
    sizes = tuple(size) if isinstance(size, tuple | list) else (size, size)
    if len(sizes) != 2 or not all(isinstance(n, int) and n >= least for n in sizes):
        raise ValueError(f"{name}={size!r}: expected a whole number of at least {least}, or two: (height, width).")
    return sizes


def image_shape(layer: str, input_shape: Shape) -> tuple[int, int, int]:
    """(H, W, C) of a layer's input; raises ValueError when that is no image."""
    if len(input_shape) != 3 or 0 in input_shape:
        raise ValueError(
            f"{layer} takes images of shape (height, width, channels), not samples of shape {input_shape}. "
            "For flat rows begin with Reshape((height, width, channels))."
        )
    return input_shape[0], input_shape[1], input_shape[2]


def windows(
    layer: str, input_shape: Shape, kernel_size: Size, stride: Size, padding: Padding, dilation: Size = 1
) -> Windows:
    """The windows of a layer on its input (H, W, C).  Raises ValueError when the image is smaller than a window."""
    height, width, _ = image_shape(layer, input_shape)
    kernel, step, gap = pair("kernel_size", kernel_size, 1), pair("stride", stride, 1), pair("dilation", dilation, 1)
    reach_h, reach_w = gap[0] * (kernel[0] - 1) + 1, gap[1] * (kernel[1] - 1) + 1
    if padding == "same":
        out_height, out_width = -(-height // step[0]), -(-width // step[1])
        top = max((out_height - 1) * step[0] + reach_h - height, 0) // 2
        left = max((out_width - 1) * step[1] + reach_w - width, 0) // 2
    else:
        top, left = (0, 0) if padding == "valid" else pair("padding", padding, 0)
        out_height = (height + 2 * top - reach_h) // step[0] + 1
        out_width = (width + 2 * left - reach_w) // step[1] + 1
    if out_height < 1 or out_width < 1:
        raise ValueError(
            f"{layer}: windows of {reach_h}x{reach_w} don't fit into images of {height}x{width} with "
            f"padding={padding!r}."
        )
    return Windows(
        height=height,
        width=width,
        out_height=out_height,
        out_width=out_width,
        kernel_h=kernel[0],
        kernel_w=kernel[1],
        stride_h=step[0],
        stride_w=step[1],
        dilation_h=gap[0],
        dilation_w=gap[1],
        top=top,
        left=left,
    )

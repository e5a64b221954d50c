"""A helper of `convolution.py` and `pooling.py`: their arguments, checked, and the shapes of windows that follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import numpy as np

from dist_relu.core.checks import check_choice, check_int, check_ints, shown
from dist_relu.kernels.windows import Windows
from dist_relu.nn.layer import Shape

Size = int | Sequence[int]
"""A number for height and width, or one for each."""

Padding = Literal["same", "valid"] | Size
"""Zeros around an image: as many as it takes for ⌈size / stride⌉ outputs, none, or a number on each side."""


def check_size(name: str, value: object, least: int = 1) -> Size:
    """A check for `dist_relu.core.checks`: a whole number of at least `least`, or two: (height, width)."""
    if not isinstance(value, Sequence | np.ndarray) or isinstance(value, str) or np.ndim(value) == 0:
        return check_int(name, value, least)
    sizes = check_ints(name, value, least)
    if len(sizes) != 2:
        raise ValueError(f"{shown(name, value)}: expected a whole number, or two: (height, width).")
    return sizes


def check_margin(name: str, value: object) -> Size:
    """A check: a whole number of at least 0, or two."""
    return check_size(name, value, 0)


def check_padding(name: str, value: object) -> Padding:
    """A check: "same", "valid", or a margin."""
    if isinstance(value, str):
        check_choice(name, value, ("same", "valid"))
        return cast(Padding, value)
    return check_margin(name, value)


def pair(size: Size) -> tuple[int, int]:
    """(height, width) of an argument that was checked."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


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
    kernel, step, gap = pair(kernel_size), pair(stride), pair(dilation)
    reach_h, reach_w = gap[0] * (kernel[0] - 1) + 1, gap[1] * (kernel[1] - 1) + 1
    if padding == "same":
        out_height, out_width = -(-height // step[0]), -(-width // step[1])
        top = max((out_height - 1) * step[0] + reach_h - height, 0) // 2
        left = max((out_width - 1) * step[1] + reach_w - width, 0) // 2
    else:
        top, left = (0, 0) if padding == "valid" else pair(padding)
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

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
    if len(input_shape) != 3:
        raise ValueError(
            f"{layer} takes images of shape (height, width, channels), not samples of shape {input_shape}. "
            "For flat rows begin with Reshape((height, width, channels))."
        )
    return input_shape[0], input_shape[1], input_shape[2]


def windows(
    layer: str, input_shape: Shape, kernel_size: Size, stride: Size, padding: Padding, dilation: Size = 1
) -> Windows:
    """The windows of a layer on its input (H, W, C).  Raises ValueError when the image is smaller than a window."""
    image = image_shape(layer, input_shape)[:2]
    kernel, step, gap = pair("kernel_size", kernel_size, 1), pair("stride", stride, 1), pair("dilation", dilation, 1)
    reach = [g * (k - 1) + 1 for g, k in zip(gap, kernel, strict=True)]
    before, outputs = [], []
    for axis in range(2):
        size, s, r = image[axis], step[axis], reach[axis]
        if padding == "same":
            num = -(-size // s)
            total = max((num - 1) * s + r - size, 0)
            before.append(total // 2)
        else:
            before.append(0 if padding == "valid" else pair("padding", padding, 0)[axis])
            num = (size + 2 * before[axis] - r) // s + 1
        if num < 1:
            raise ValueError(
                f"{layer}: windows of {reach[0]}x{reach[1]} don't fit into images of {image[0]}x{image[1]} with "
                f"padding={padding!r}."
            )
        outputs.append(num)
    return Windows(*image, *outputs, *kernel, *step, *gap, *before)

"""Where the windows of convolution and pooling lie."""

from __future__ import annotations

from typing import NamedTuple

from dist_relu.kernels.jit import kernel


class Windows(NamedTuple):
    """Windows on images of height x width; a row of windows for each row of the output.

    The window of output (i, j) has its element (a, b) at input (i stride_h + a dilation_h - top,
    j stride_w + b dilation_w - left); what lies outside of the image is padding.
    """

    height: int
    width: int
    out_height: int
    out_width: int
    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    top: int
    left: int


@kernel
def span(w: Windows, b: int) -> tuple[int, int, int]:
    """Where column `b` of a row of windows meets the image: the windows from `begin` to `end`, at j stride_w + offset.

    Returns (offset, begin, end).
    """
    offset = b * w.dilation_w - w.left
    begin = min(max(-(offset // w.stride_w), 0), w.out_width)
    end = min(max(-((offset - w.width) // w.stride_w), begin), w.out_width)
    return offset, begin, end


@kernel
def outputs_of(w: Windows, h: int) -> tuple[int, int]:
    """The rows of windows that row `h` of the image may lie in, (first, stop); with dilation not all meet it."""
    at = h + w.top
    first = max(-((w.dilation_h * (w.kernel_h - 1) - at) // w.stride_h), 0)
    return first, min(at // w.stride_h + 1, w.out_height)

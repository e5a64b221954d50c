"""Where the windows of convolution and pooling lie."""

from __future__ import annotations

from typing import NamedTuple


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

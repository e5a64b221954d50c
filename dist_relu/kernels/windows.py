"""Where the windows of convolution and pooling lie, and the loop over their elements, written once for all of these.

An element (a, b) of the windows, a tap, joins a row of outputs with a row of the image: each window with the pixel that
lies under its tap. So what a tap does is a loop along two rows, of which `gather` and `scatter` make a kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import kernel, specialise
from dist_relu.kernels.long_sums import TERMS, end_chain


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
    """Tell where column `b` of a row of windows meets the image: windows `begin` to `end`, at j stride_w + offset.

    Returns (offset, begin, end).
    """
    offset = b * w.dilation_w - w.left
    begin = min(max(-(offset // w.stride_w), 0), w.out_width)
    end = min(max(-((offset - w.width) // w.stride_w), begin), w.out_width)
    return offset, begin, end


@kernel
def _meet_image(w: Windows, i: int, number: int) -> tuple[int, int]:
    """Return a row of taps, and the row of the image that it joins with row `i` of the output; -1: that is padding."""
    h = i * w.stride_h + number * w.dilation_h - w.top
    return number, h if 0 <= h < w.height else -1


@kernel
def _meet_output(w: Windows, h: int, number: int) -> tuple[int, int]:
    """Return a row of taps, and the row of the output that it joins with row `h` of the image; -1: there is none."""
    a = w.kernel_h - 1 - number  # rows of the output from above to below
    distance = h + w.top - a * w.dilation_h
    i = distance // w.stride_h
    return a, i if 0 <= i < w.out_height and i * w.stride_h == distance else -1


# What stands for functions in the loop below.


def meet(w: Windows, row: int, number: int) -> tuple[int, int]:
    """Return the row of taps whose turn it is, and the row of the source that it joins with `row`; -1: none."""
    raise NotImplementedError


def tap(source: Array, target: Array, w: Windows, row: int, a: int, b: int, *others: Any) -> None:
    """Do to the row of the target what tap (a, b) does, with `source`, which is row `row` of the source."""
    raise NotImplementedError


def over_taps(source: Array, target: Array, w: Windows, row: int, wide: Array, *others: Any) -> None:
    """Do to row `row` of a target what taps do, in the order of the rows of the source.

    source: (rows, ...).  target: that row alone.  wide: its wide sums, see `long_sums`; empty where there is no sum, or
    one of few terms.  others: what else taps need.
    """
    terms = 0
    for number in range(w.kernel_h):
        a, met = meet(w, row, number)
        if met < 0:
            continue
        for b in range(w.kernel_w):
            if terms == TERMS:
                end_chain(target.reshape(-1), wide)
                terms = 0
            terms += 1
            tap(source[met], target, w, met, a, b, *others)


def gather(tap: Callable[..., None]) -> Callable[..., None]:
    """Make `tap` the kernel `over_taps` for a row of the output: it works with the rows of the image in its windows."""
    functions: dict[str, Callable[..., Any]] = {"tap": kernel(tap, inlined=True), "meet": _meet_image}
    return specialise(over_taps, f"gather{tap.__name__}", functions, inlined=True)


def scatter(tap: Callable[..., None]) -> Callable[..., None]:
    """Make `tap` the kernel `over_taps` for a row of the image: it works with the outputs in whose windows it lies."""
    functions: dict[str, Callable[..., Any]] = {"tap": kernel(tap, inlined=True), "meet": _meet_output}
    return specialise(over_taps, f"scatter{tap.__name__}", functions, inlined=True)

"""Where the windows of convolution and pooling lie, and the loop over their elements, written once for all of these.

An element (a, b) of the windows, a tap, joins a row of outputs with a row of the image: each window with the pixel that
lies under its tap. So what a tap does is a loop along two rows, of which `gather` and `scatter` make a kernel. Rows are
flat: (W C) or (J C), since loops over the channels of one pixel are short.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import kernel, specialise
from dist_relu.kernels.llvm import run_of
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


@kernel
def _from_image(source: Array, target: Array) -> tuple[Array, Array]:
    """Return the row of the image and that of the output, for a target that is an output."""
    return source, target


@kernel
def _from_output(source: Array, target: Array) -> tuple[Array, Array]:
    """Return the row of the image and that of the output, for a target that is an image."""
    return target, source


# What stands for functions in the loop below.


def meet(w: Windows, row: int, number: int) -> tuple[int, int]:
    """Return the row of taps whose turn it is, and the row of the source that it joins with `row`; -1: none."""
    raise NotImplementedError


def image_and_output(source: Array, target: Array) -> tuple[Array, Array]:
    """Return the row of the image and that of the output."""
    raise NotImplementedError


def tap(image: Array, output: Array, number: int, row: int, at: int, *others: Any) -> None:
    """Do what tap a·B + b = `number` does, to runs of numbers of which each is joined with the one in the same place.

    row: of the source.  at: where the run begins in the row of outputs.
    """
    raise NotImplementedError


def over_taps(source: Array, target: Array, w: Windows, channels: int, row: int, wide: Array, *others: Any) -> None:
    """Do to row `row` of a target what taps do, in the order of the rows of the source.

    source: (rows, numbers of a row).  target: that row alone.  wide: its wide sums, see `long_sums`; empty where there
    is no sum, or one of few terms.  others: what else taps need. Pixels that lie side by side in both rows are one run.
    """
    terms = 0
    for number in range(w.kernel_h):
        a, met = meet(w, row, number)
        if met < 0:
            continue
        image, output = image_and_output(source[met], target)
        for b in range(w.kernel_w):
            if terms == TERMS:
                end_chain(target, wide)
                terms = 0
            terms += 1
            offset, begin, end = span(w, b)
            pixels = max(end - begin, 1) if w.stride_w == 1 else 1
            size = pixels * channels
            for j in range(begin, end, pixels):
                at, image_at = j * channels, (j * w.stride_w + offset) * channels
                image_run, output_run = run_of(image, image_at, size), run_of(output, at, size)
                tap(image_run, output_run, a * w.kernel_w + b, met, at, *others)


def gather(tap: Callable[..., None]) -> Callable[..., None]:
    """Make `tap` the kernel `over_taps` for a row of the output: it works with the rows of the image in its windows."""
    return _over_taps(tap, "gather", {"meet": _meet_image, "image_and_output": _from_image})


def scatter(tap: Callable[..., None]) -> Callable[..., None]:
    """Make `tap` the kernel `over_taps` for a row of the image: it works with the outputs in whose windows it lies."""
    return _over_taps(tap, "scatter", {"meet": _meet_output, "image_and_output": _from_output})


def _over_taps(tap: Callable[..., None], name: str, functions: dict[str, Callable[..., Any]]) -> Callable[..., None]:
    functions = {"tap": kernel(tap, inlined=True), **functions}
    return specialise(over_taps, f"{name}{tap.__name__}", functions, inlined=True)

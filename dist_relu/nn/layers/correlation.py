"""A helper of `convolution.py`: convolution and its gradients as products of windows with packed filters.

It holds no layer; it works out once for a layer where the numbers of each window lie, and calls the kernels with it.
`winograd.py` has the same methods.

n images, H W height and width, C channels, I J height and width of the output, A B those of the kernel, D channels that
a filter sees, K filters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Self, final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.kernels import convolution as kernels
from dist_relu.kernels.convolution import Correlation
from dist_relu.kernels.copies import fill
from dist_relu.kernels.tiles import AS_IS
from dist_relu.kernels.windows import Windows
from dist_relu.nn.layer import Pass


@final
@dataclass(frozen=True)
class Runs:
    """Runs tell where the numbers of a window lie: `length` of them, one behind the other, from each of `starts`."""

    starts: Array
    length: int

    @classmethod
    def of(cls, starts: Sequence[int], length: int) -> Self:
        """Runs of `length`; neighbours are joined where all of them can be, in equal numbers."""
        for number in range(len(starts), 0, -1):
            if len(starts) % number:
                continue
            expected = [starts[i - i % number] + i % number * length for i in range(len(starts))]
            if list(starts) == expected:
                return cls(np.array(starts[::number], np.int64), length * number)
        raise AssertionError("single runs are always what they are")


@final
@dataclass(frozen=True)
class Phase:
    """Pixels of the input that lie a stride apart, and so belong to the same elements of the kernel, `taps`."""

    correlation: Correlation
    runs: Runs
    taps: Array


@final
class Convolution:
    """A convolution with `windows` on images of `channels`, by `filters` in `groups`; without a bias of its own."""

    def __init__(self, windows: Windows, channels: int, filters: int, groups: int) -> None:
        self._groups = groups
        self._columns, self._depth = filters // groups, channels // groups
        self._forward, self._runs = _forward(windows, channels, filters, self._depth)
        self._phases = _phases(windows, channels, filters, self._columns)
        pixels = min(windows.stride_h, windows.height) * min(windows.stride_w, windows.width)
        self._leaves_gaps = len(self._phases) < pixels

    def pack(self, weight: Array, run: Pass) -> Array:
        """The filters (A, B, D, K) as `forward` takes them."""
        matrix = _as_matrix(weight)
        size = kernels.panel_size(len(matrix), self._columns, weight.dtype)
        panels = run.scratch("convolution panels", (self._groups, size), weight.dtype)
        kernels.pack_filters(matrix, panels)
        return panels

    def pack_transposed(self, weight: Array, run: Pass) -> list[Array]:
        """The filters as `backward_x` takes them."""
        packed = []
        for number, phase in enumerate(self._phases):
            size = kernels.panel_size(len(phase.taps) * self._columns, self._depth, weight.dtype)
            panels = run.scratch(f"convolution panels of phase {number}", (self._groups, size), weight.dtype)
            kernels.pack_filters_transposed(_as_matrix(weight), self._depth, phase.taps, panels)
            packed.append(panels)
        return packed

    def forward(self, x: Array, panels: Array, bias: Array, epilogue: int, z: Array) -> None:
        """z = x convolved with the filters, then what `epilogue` says.

        x: (n, H, W, C).  panels: what `pack` returns.  bias: (K,), or any flat array where none is asked for.
        z: (n, I, J, K).
        """
        runs, images = self._runs, image_rows(x)
        kernels.correlate(
            images, self._forward, runs.starts, runs.length, panels, self._columns, bias, epilogue, _flat(z)
        )

    def backward_x(self, dz: Array, packed: Sequence[Array], dx: Array) -> None:
        """dx = the gradient of the images; shapes as in `forward`.  packed: what `pack_transposed` returns."""
        images, flat = image_rows(dz), _flat(dx)
        if self._leaves_gaps:
            fill(flat.reshape(-1), 0.0)
        for phase, panels in zip(self._phases, packed, strict=True):
            runs, no_bias = phase.runs, panels.reshape(-1)
            kernels.correlate(
                images, phase.correlation, runs.starts, runs.length, panels, self._depth, no_bias, AS_IS, flat
            )

    def add_backward_weight(self, x: Array, dz: Array, d_weight: Array) -> None:
        """Add the gradient of the filters to d_weight; shapes as in `forward`."""
        pixels = dz.reshape(len(dz), dz.shape[1] * dz.shape[2], dz.shape[3])
        runs = self._runs
        kernels.add_correlated(
            image_rows(x), self._forward, runs.starts, runs.length, pixels, self._groups, _as_matrix(d_weight)
        )


def _forward(w: Windows, channels: int, filters: int, depth: int) -> tuple[Correlation, Runs]:
    height = (w.out_height - 1) * w.stride_h + (w.kernel_h - 1) * w.dilation_h + 1
    width = (w.out_width - 1) * w.stride_w + (w.kernel_w - 1) * w.dilation_w + 1
    correlation = Correlation(
        top=w.top,
        left=w.left,
        height=height,
        width=width,
        channels=channels,
        row=w.stride_h * width * channels,
        pixel=w.stride_w * channels,
        z_first=0,
        z_row=w.out_width * filters,
        z_pixel=filters,
        rows=w.out_height,
        pixels=w.out_width,
    )
    starts = [
        (a * w.dilation_h * width + b * w.dilation_w) * channels for a in range(w.kernel_h) for b in range(w.kernel_w)
    ]
    return correlation, Runs.of(starts, depth)


def _phases(w: Windows, channels: int, filters: int, columns: int) -> list[Phase]:
    """The phases that meet any element of the kernel.

    The outputs' gradient is what is padded here: far enough for every pixel's windows to lie within it.

    Pixel h belongs to output i through element a of the kernel where i stride = h + top - a dilation.
    """
    vertical = [_taps(first, w.top, w.stride_h, w.dilation_h, w.kernel_h) for first in range(min(w.stride_h, w.height))]
    horizontal = [
        _taps(first, w.left, w.stride_w, w.dilation_w, w.kernel_w) for first in range(min(w.stride_w, w.width))
    ]
    top, height = _margin_and_size(vertical, w.height, w.stride_h)
    left, width = _margin_and_size(horizontal, w.width, w.stride_w)
    phases = []
    for h, rows in enumerate(vertical):
        for v, pixels in enumerate(horizontal):
            correlation = Correlation(
                top=top,
                left=left,
                height=height,
                width=width,
                channels=filters,
                row=width * filters,
                pixel=filters,
                z_first=(h * w.width + v) * channels,
                z_row=w.stride_h * w.width * channels,
                z_pixel=w.stride_w * channels,
                rows=-(-(w.height - h) // w.stride_h),
                pixels=-(-(w.width - v) // w.stride_w),
            )
            taps = [(((i + top) * width + j + left) * filters, a * w.kernel_w + b) for i, a in rows for j, b in pixels]
            numbers = np.array([number for _, number in taps], np.int64)
            if taps:
                phases.append(Phase(correlation, Runs.of([start for start, _ in taps], columns), numbers))
    return phases


def _taps(first: int, margin: int, stride: int, dilation: int, size: int) -> list[tuple[int, int]]:
    """(output, element) for all elements of a kernel that pixel `first` meets, by their outputs."""
    distances = [(first + margin - element * dilation, element) for element in range(size)]
    return sorted((distance // stride, element) for distance, element in distances if distance % stride == 0)


def _margin_and_size(taps: Sequence[Sequence[tuple[int, int]]], size: int, stride: int) -> tuple[int, int]:
    """How far outputs are padded in one dimension, and what they then measure."""
    margin = max([-output for phase in taps for output, _ in phase] + [0])
    ends = [output + -(-(size - first) // stride) for first, phase in enumerate(taps) for output, _ in phase]
    return margin, margin + max([*ends, 1])


def image_rows(x: Array) -> Array:
    """Images by rows, (n, H, W C)."""
    return x.reshape(*x.shape[:2], x.shape[2] * x.shape[3])


def _flat(x: Array) -> Array:
    """Images as rows of numbers, (n, H W C)."""
    return x.reshape(len(x), prod(x.shape[1:]))


def _as_matrix(weight: Array) -> Array:
    """Filters as columns of a matrix, (A B D, K)."""
    return weight.reshape(-1, weight.shape[-1])

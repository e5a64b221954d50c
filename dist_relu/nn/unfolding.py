"""Images as rows of windows, so that convolution is a matrix product; what is done at a time stays in the cache.

n images, H W height and width, C channels, I J height and width of the output, A B those of the kernel, D channels that
a filter sees.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import numpy as np

from dist_relu.arrays import Array
from dist_relu.kernels import convolution as kernels
from dist_relu.kernels.windows import Windows
from dist_relu.nn.layer import Run

_MIN_RUN = 16
"""Elements from which a run is worth a loop of its own."""


class Unfolding(ABC):
    """A way to unfold images, and its transpose."""

    @abstractmethod
    def unfold(self, x: Array, first: int, run: Run) -> Array:
        """The windows on the D channels of x from `first` on.  x: (n, H, W, C); returns (n I J, A B D), scratch."""

    @abstractmethod
    def fold(self, cols: Array, first: int, dx: Array, run: Run) -> None:
        """Add each row of `cols`, laid out as `unfold` returns them, to where its window lies in dx (n, H, W, C)."""


def unfolding(windows: Windows, channels: int, depth: int) -> Unfolding:
    """The fastest way for `windows` on `depth` of all `channels`."""
    neighbours = depth == channels and windows.dilation_w == 1
    length = windows.kernel_w * depth if neighbours else depth
    return ByRuns(windows, depth) if length >= _MIN_RUN else ByPlanes(windows, depth)


@final
@dataclass(frozen=True)
class ByRuns(Unfolding):
    """Window after window, in the runs in which it lies in memory."""

    windows: Windows
    depth: int

    def unfold(self, x: Array, first: int, run: Run) -> Array:
        w = self.windows
        shape = (len(x), w.out_height, w.out_width, w.kernel_h, w.kernel_w * self.depth)
        cols = run.scratch("convolution unfolded", shape, x.dtype)
        kernels.unfold(x.reshape(len(x), w.height, -1), w, x.shape[3], first, cols)
        return cols.reshape(-1, w.kernel_h * w.kernel_w * self.depth)

    def fold(self, cols: Array, first: int, dx: Array, run: Run) -> None:
        w = self.windows
        shape = (len(dx), w.out_height, w.out_width, w.kernel_h, w.kernel_w * self.depth)
        kernels.fold(cols.reshape(shape), w, dx.shape[3], first, dx.reshape(len(dx), w.height, -1))


@final
@dataclass(frozen=True)
class ByPlanes(Unfolding):
    """Element after element of all windows, from channels that are images of their own: for few channels.

    The first layer's runs of one or three pixels are too short; here a run is a row of the output.
    """

    windows: Windows
    depth: int

    def unfold(self, x: Array, first: int, run: Run) -> Array:
        w = self.windows
        shape = (w.kernel_h, w.kernel_w, self.depth, len(x), w.out_height, w.out_width)
        cols = run.scratch("convolution unfolded", shape, x.dtype)
        kernels.unfold_planes(np.ascontiguousarray(x), w, first, self._padded(x, run), cols)
        return cols.reshape(w.kernel_h * w.kernel_w * self.depth, -1).T

    def fold(self, cols: Array, first: int, dx: Array, run: Run) -> None:
        w = self.windows
        shape = (w.kernel_h, w.kernel_w, self.depth, len(dx), w.out_height, w.out_width)
        kernels.fold_planes(cols.T.reshape(shape), w, first, self._padded(dx, run), dx)

    def _padded(self, x: Array, run: Run) -> Array:
        """Scratch memory for channels as images with their padding, as far as windows reach."""
        w = self.windows
        height = (w.out_height - 1) * w.stride_h + (w.kernel_h - 1) * w.dilation_h + 1
        width = (w.out_width - 1) * w.stride_w + (w.kernel_w - 1) * w.dilation_w + 1
        return run.scratch("convolution padded", (self.depth, len(x), height, width), x.dtype)

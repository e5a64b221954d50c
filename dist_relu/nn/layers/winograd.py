"""A helper of `convolution.py`: what `correlation.py` does, by Winograd's way for filters of 3 x 3.

n images, H W height and width, C channels, I J height and width of the output, K filters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.kernels import winograd as kernels
from dist_relu.kernels.tiles import AS_IS
from dist_relu.kernels.windows import Windows
from dist_relu.kernels.winograd_transforms import TILE
from dist_relu.nn.layer import Pass

_LANES = 16
"""Channels and filters are multiples of this, so that they are whole vectors on every processor."""


def suits(w: Windows, channels: int, filters: int, groups: int, dtype: np.dtype[Any]) -> bool:
    """Whether Winograd's way is the faster one: tiles of outputs must not be mostly beside the image."""
    shape = w.kernel_h, w.kernel_w, w.stride_h, w.stride_w, w.dilation_h, w.dilation_w
    down, across = -(-w.out_height // TILE), -(-w.out_width // TILE)
    return (
        dtype == np.float32
        and (shape, groups) == ((3, 3, 1, 1, 1, 1), 1)
        and channels % _LANES == filters % _LANES == 0
        and max(w.top, w.left) <= 2
        and 2 * w.out_height * w.out_width >= down * across * TILE**2
    )


@final
class WinogradConvolution:
    """A convolution with `windows` that it `suits`, without a bias of its own.  Methods are those of `Convolution`."""

    def __init__(self, windows: Windows) -> None:
        self._top, self._left = windows.top, windows.left

    def pack(self, weight: Array, run: Pass) -> Array:
        channels, filters = weight.shape[2:]
        panels = run.scratch("transformed filters", (kernels.NUM_PRODUCTS, channels * filters), weight.dtype)
        kernels.pack_filters(weight, panels)
        return panels

    def pack_transposed(self, weight: Array, run: Pass) -> list[Array]:
        channels, filters = weight.shape[2:]
        rotated = run.scratch("rotated filters", (3, 3, filters, channels), weight.dtype)
        kernels.rotate(weight, rotated)
        return [self.pack(rotated, run)]

    def forward(self, x: Array, panels: Array, bias: Array, epilogue: int, z: Array) -> None:
        kernels.correlate(x, self._top, self._left, panels, bias, epilogue, z)

    def backward_x(self, dz: Array, packed: Sequence[Array], dx: Array) -> None:
        [panels] = packed
        kernels.correlate(dz, 2 - self._top, 2 - self._left, panels, panels.reshape(-1), AS_IS, dx)

    def add_backward_weight(self, x: Array, dz: Array, d_weight: Array) -> None:
        kernels.add_filters_gradient(x, self._top, self._left, dz, d_weight)

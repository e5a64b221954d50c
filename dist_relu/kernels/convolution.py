"""Convolution of images, without unfolding them, and depthwise convolution.

A row of outputs is a tile of a matrix product (`dist_relu.kernels.tiles`), whose row r is the window of output r: it
lies in the padded image as a few runs of numbers, and the filters are packed as panels in the order of those runs. The
gradients of images and filters are products of the same kind.

N batch, H W height and width, C channels, I J height and width of the output, A B those of the kernel, D channels that
a filter sees, K filters, G groups of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import kernel
from dist_relu.kernels.llvm import empty, run_of, zeros
from dist_relu.kernels.long_sums import TERMS, end_chain, end_sum, sum_rows, wide_sums
from dist_relu.kernels.ordered_sum import add
from dist_relu.kernels.packing import aligned, lanes_of, pack, pack_transposed, vectors_for
from dist_relu.kernels.products import FEW_ROWS, multiply_into
from dist_relu.kernels.tiles import AS_IS
from dist_relu.kernels.vectors import VECTOR_BYTES
from dist_relu.kernels.windows import Windows, gather, scatter

PIXELS = 512
"""Terms of a product over pixels, unless a row has more."""


class Correlation(NamedTuple):
    """Where windows lie in padded images, and where their outputs go; all but the first five in numbers, not pixels.

    top, left: padding before the image.  height, width: of the padded image.  channels: numbers in a pixel.
    row, pixel: from a window to the one below it, and beside it.  z_first, z_row, z_pixel: the first output of an
    image, and the steps to the others; there are `rows` times `pixels` of them.
    """

    top: int
    left: int
    height: int
    width: int
    channels: int
    row: int
    pixel: int
    z_first: int
    z_row: int
    z_pixel: int
    rows: int
    pixels: int


@kernel
def _place(image: Array, c: Correlation, padded: Array) -> None:
    """Copy an image (H, W C) into the padded one, whose padding stays as it is; what reaches beyond is cut off."""
    length = min(image.shape[1], (c.width - c.left) * c.channels)
    for h in range(min(image.shape[0], c.height - c.top)):
        row, start = image[h], ((h + c.top) * c.width + c.left) * c.channels
        target = padded[start : start + length]
        for i in range(length):
            target[i] = row[i]


def panel_size(depth: int, columns: int, dtype: np.dtype[Any]) -> int:
    """Count the numbers in the panels of so many columns, of `depth` terms each."""
    lanes = VECTOR_BYTES // dtype.itemsize
    return depth * -(-columns // lanes) * lanes


@kernel
def pack_filters(weight: Array, panels: Array) -> None:
    """Pack each group's filters as panels.  weight: (A B D, K).  panels: (G, panel size)."""
    groups, depth, columns = panels.shape[0], weight.shape[0], weight.shape[1] // panels.shape[0]
    for group in range(groups):
        first = group * columns
        pack(weight, False, 0, depth, first, first + columns, panels[group])


@kernel
def pack_filters_transposed(weight: Array, depth: int, taps: Array, panels: Array) -> None:
    """Pack some elements (`taps`) of each group's filters as panels, as products with outputs need them.

    weight: (A B D, K).  panels: (G, panel size): a row for each filter of each tap, a column for each of D channels.
    """
    lanes, groups, filters = lanes_of(weight), panels.shape[0], weight.shape[1] // panels.shape[0]
    for group in range(groups):
        for k in range(0, depth, 2 * lanes):
            panel_width = vectors_for(depth - k, lanes) * lanes
            for t in range(len(taps)):
                panel = panels[group, k * len(taps) * filters + t * filters * panel_width :]
                pack_transposed(weight, group * filters, filters, taps[t] * depth + k, panel_width, panel)


@kernel
def correlate(
    x: Array,
    c: Correlation,
    runs: Array,
    length: int,
    panels: Array,
    columns: int,
    bias: Array,
    epilogue: int,
    z: Array,
) -> None:
    """z = the windows on x times packed filters, then what `epilogue` says.

    x: (N, H, W C).  runs, length: those of a window, as in `multiply_panel`, from its first channel on.
    panels: (G, panel size), of `columns` columns.  bias: (G columns,).  z: (N, outputs).
    """
    lanes, depth, groups = lanes_of(x), runs.shape[0] * length, panels.shape[0]
    padded, edge = zeros(c.height * c.width * c.channels, x.dtype), aligned(FEW_ROWS * 2 * lanes, x)
    offset, flat, z_flat = aligned(2 * lanes, x), panels.reshape(-1), z.reshape(-1)
    for n in range(x.shape[0]):
        _place(x[n], c, padded)
        for group in range(groups):
            for k in range(0, columns, 2 * lanes):
                here = min(columns - k, 2 * lanes)
                if epilogue != AS_IS:
                    for i in range(here):
                        offset[i] = bias[group * columns + k + i]
                for i in range(c.rows):
                    multiply_into(
                        padded,
                        i * c.row + group * (c.channels // groups),
                        c.pixel,
                        1,
                        runs,
                        length,
                        flat,
                        group * panels.shape[1] + k * depth,
                        vectors_for(here, lanes),
                        z_flat,
                        n * z.shape[1] + c.z_first + i * c.z_row + group * columns + k,
                        c.z_pixel,
                        c.pixels,
                        here,
                        False,
                        offset,
                        epilogue,
                        edge,
                    )


@kernel
def add_correlated(x: Array, c: Correlation, runs: Array, length: int, dz: Array, groups: int, d_weight: Array) -> None:
    """d_weight += the gradient of the filters from that of the outputs of `correlate`, image after image.

    Large images are cut into bands of rows, each a product of PIXELS terms, or of one row, and bands are added up as
    `long_sums` does.  dz: (N, I J, K).  d_weight: (A B D, K).  All else as in `correlate`.
    """
    lanes, filters = lanes_of(x), dz.shape[2]
    columns, band = filters // groups, min(max(PIXELS // c.pixels, 1), c.rows)
    padded, edge = zeros(c.height * c.width * c.channels, x.dtype), aligned(FEW_ROWS * 2 * lanes, x)
    panel, rows = aligned(band * c.pixels * 2 * lanes, x), empty(c.rows, np.int64)
    for i in range(c.rows):
        rows[i] = i * c.row
    flat, terms = d_weight.reshape(-1), 0
    wide = wide_sums(len(x) * ((c.rows + band - 1) // band), flat.shape[0])
    for n in range(x.shape[0]):
        _place(x[n], c, padded)
        for first in range(0, c.rows, band):
            if terms == TERMS:
                end_chain(flat, wide)
                terms = 0
            terms += 1
            stop = min(first + band, c.rows)
            for group in range(groups):
                for k in range(0, columns, 2 * lanes):
                    here, column = min(columns - k, 2 * lanes), group * columns + k
                    vectors = vectors_for(here, lanes)
                    pack(dz[n], False, first * c.pixels, (stop - first) * c.pixels, column, column + here, panel)
                    for run in range(runs.shape[0]):
                        multiply_into(
                            padded,
                            runs[run] + group * (c.channels // groups),
                            1,
                            c.pixel,
                            rows[first:stop],
                            c.pixels,
                            panel,
                            0,
                            vectors,
                            flat,
                            run * length * filters + column,
                            filters,
                            length,
                            here,
                            True,
                            edge,
                            0,
                            edge,
                        )
    end_sum(flat, wide)


@gather
def _add_weighted(x: Array, z: Array, number: int, h: int, at: int, weights: Array) -> None:
    """z += x times weights; x, z: (n,).  weights: (A B, J C)."""
    weight = run_of(weights[number], at, z.shape[0])
    for c in range(z.shape[0]):
        z[c] += x[c] * weight[c]


@scatter
def _add_weighted_back(dx: Array, dz: Array, number: int, i: int, at: int, weights: Array) -> None:
    """dx += dz times weights; dx, dz: (n,).  weights: (A B, J C)."""
    weight = run_of(weights[number], at, dz.shape[0])
    for c in range(dz.shape[0]):
        dx[c] += dz[c] * weight[c]


@gather
def _add_to_weights(x: Array, dz: Array, number: int, h: int, at: int, d_weights: Array) -> None:
    """d_weights += x dz; x, dz: (n,).  d_weights: (A B, J C)."""
    d_weight = run_of(d_weights[number], at, dz.shape[0])
    for c in range(dz.shape[0]):
        d_weight[c] += x[c] * dz[c]


@kernel
def depthwise(x: Array, weight: Array, w: Windows, channels: int, z: Array) -> None:
    """z = every channel's windows times its weights.

    x: (N, H, W C).  weight: (A, B, J C), repeated for each pixel of a row, so that a row is one loop.  z: (N, I, J C).
    """
    wide, weights = wide_sums(w.kernel_h * w.kernel_w, z.shape[2]), weight.reshape(-1, weight.shape[2])
    for n in range(z.shape[0]):
        for i in range(w.out_height):
            row = z[n, i]
            row[:] = 0
            _add_weighted(x[n], row, w, channels, i, wide, weights)
            end_sum(row, wide)


@kernel
def depthwise_backward_x(dz: Array, weight: Array, w: Windows, channels: int, dx: Array) -> None:
    """dx = the gradient of the input of `depthwise`, with the same shapes."""
    wide, weights = wide_sums(w.kernel_h * w.kernel_w, dx.shape[2]), weight.reshape(-1, weight.shape[2])
    for n in range(dz.shape[0]):
        for h in range(w.height):
            row = dx[n, h]
            row[:] = 0
            _add_weighted_back(dz[n], row, w, channels, h, wide, weights)
            end_sum(row, wide)


@kernel
def depthwise_backward_weight(x: Array, dz: Array, w: Windows, channels: int, d_weight: Array) -> None:
    """d_weight = the gradients of the repeated weights of `depthwise`, with the same shapes."""
    flat, d_weights = d_weight.reshape(-1), d_weight.reshape(-1, d_weight.shape[2])
    terms, no_sum = 0, wide_sums(0, 0)
    wide = wide_sums(dz.shape[0] * w.out_height, flat.shape[0])
    flat[:] = 0
    for n in range(dz.shape[0]):
        for i in range(w.out_height):
            if terms == TERMS:
                end_chain(flat, wide)
                terms = 0
            terms += 1
            _add_to_weights(x[n], dz[n, i], w, channels, i, no_sum, d_weights)
    end_sum(flat, wide)


@kernel
def repeat_over_pixels(weight: Array, repeated: Array) -> None:
    """repeated = weights side by side for every pixel of a row.  weight: (A, B, 1, C).  repeated: (A, B, J C)."""
    channels = weight.shape[3]
    for a in range(repeated.shape[0]):
        for b in range(repeated.shape[1]):
            for start in range(0, repeated.shape[2], channels):
                for c in range(channels):
                    repeated[a, b, start + c] = weight[a, b, 0, c]


@kernel
def add_over_pixels(d_repeated: Array, d_weight: Array) -> None:
    """d_weight += the sums of d_repeated over the pixels of a row.

    d_repeated: (A, B, J C), as in `depthwise`.  d_weight: (A, B, 1, C).
    """
    channels = d_weight.shape[3]
    total = empty(channels, d_weight.dtype)
    for a in range(d_repeated.shape[0]):
        for b in range(d_repeated.shape[1]):
            sum_rows(d_repeated[a, b].reshape(d_repeated.shape[2] // channels, channels), total)
            add(d_weight[a, b, 0], total)

"""Convolution by filters of 3 x 3 in fewer multiplications: Winograd's F(4x4, 3x3).

A tile of 4 x 4 outputs is a patch of 6 x 6 pixels times the filters. Patch and filters are transformed to 6 x 6 numbers
each, which are multiplied one by one: 36 multiplications for what takes 144 otherwise. Each of the 36 numbers of many
tiles and channels makes a matrix, and filters do, so that there are 36 matrix products.

Winograd (1980); Lavin and Gray (2016), sections 4.1 and 4.3.

N batch, H W height and width, C channels, I J height and width of the output, K filters, T tiles. Channels and filters
are multiples of the lanes of a vector.
"""

from __future__ import annotations

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import kernel
from dist_relu.kernels.llvm import zeros
from dist_relu.kernels.long_sums import TERMS, end_chain, end_sum, wide_sums
from dist_relu.kernels.packing import aligned, lanes_of, pack_transposed, vectors_for
from dist_relu.kernels.products import FEW_ROWS, multiply_into
from dist_relu.kernels.tiles import AS_IS, BIAS_RELU
from dist_relu.kernels.winograd_transforms import (
    PATCH,
    TILE,
    transform_filters,
    transform_outputs,
    transform_pixels,
    transform_to_filters,
    transform_to_outputs,
)

NUM_PRODUCTS = PATCH * PATCH

_MOST_TILES, _FEWEST_TILES = 96, 24
_BLOCK_SIZE = 6144
"""Tiles times channels and filters of a block, of which all 36 matrices stay in the second-level cache, 1 MiB."""


@kernel
def rotate(weight: Array, rotated: Array) -> None:
    """rotated = the filters from whose correlation with the outputs' gradient that of the image comes.

    weight: (3, 3, C, K).  rotated: (3, 3, K, C).
    """
    channels, filters = weight.shape[2], weight.shape[3]
    matrix, flat, size = weight.reshape(9 * channels, filters), rotated.reshape(-1), channels * filters
    for tap in range(9):
        pack_transposed(matrix, 0, filters, tap * channels, channels, flat[(8 - tap) * size :])


@kernel
def pack_filters(weight: Array, panels: Array) -> None:
    """panels = the filters transformed: 36 matrices, each packed for `multiply_panel`.

    weight: (3, 3, C, K).  panels: (36, C K).
    """
    channels, filters = weight.shape[2], weight.shape[3]
    lanes, size, w, flat = lanes_of(weight), channels * filters, weight.reshape(-1), panels.reshape(-1)
    for k in range(0, filters, lanes):
        first = k // (2 * lanes) * 2 * lanes
        width = min(filters - first, 2 * lanes)
        for c in range(channels):
            target = first * channels + c * width + k - first
            transform_filters(w, c * filters + k, 3 * size, size, flat, target, PATCH * size, size)


@kernel
def _tiles_of_block(channels: int, filters: int) -> int:
    """Tell how many tiles are multiplied at once, a multiple of the rows of a product's tiles."""
    tiles = min(max(_BLOCK_SIZE // (channels + filters), _FEWEST_TILES), _MOST_TILES)
    return tiles // FEW_ROWS * FEW_ROWS


@kernel
def _image(height: int, width: int, channels: int, like: Array) -> Array:
    """Allocate an image (height, width, channels) of zeros."""
    return zeros(height * width * channels, like.dtype).reshape(height, width, channels)


@kernel
def _place(image: Array, top: int, left: int, padded: Array) -> None:
    """Copy an image (H, W, C) into the middle of a larger one, whose padding stays as it is."""
    row, source = image.shape[1] * image.shape[2], image.reshape(-1)
    width, target = padded.shape[1] * padded.shape[2], padded.reshape(-1)
    for h in range(image.shape[0]):
        start = (h + top) * width + left * image.shape[2]
        a, b = source[h * row : (h + 1) * row], target[start : start + row]
        for i in range(row):
            b[i] = a[i]


@kernel
def _transform_block(
    x: Array, top: int, left: int, first: int, stop: int, across: int, padded: Array, matrices: Array, step: int
) -> None:
    """matrices = what becomes of the patches of the tiles from `first` to `stop`, (36, T, C) in steps of `step`.

    across: tiles beside one another.  padded: (PATCH + some tiles more, ..., C), of which all but an image is 0; it
    holds the image of the tile before `first` if that is not the first of its image.
    """
    channels, lanes, flat = x.shape[3], lanes_of(x), padded.reshape(-1)
    row, per_image = padded.shape[1] * channels, (padded.shape[0] - 2) // TILE * across
    for tile in range(first, stop):
        n, at = tile // per_image, tile % per_image
        if at == 0:
            _place(x[n], top, left, padded)
        corner = at // across * TILE * row + at % across * TILE * channels
        for c in range(0, channels, lanes):
            target = (tile - first) * channels + c
            transform_pixels(flat, corner + c, row, channels, matrices, target, PATCH * step, step)


@kernel
def correlate(x: Array, top: int, left: int, panels: Array, bias: Array, epilogue: int, z: Array) -> None:
    """z = x, padded by zeros, correlated with filters, then what `epilogue` says.

    x: (N, H, W, C).  panels: (36, C K), of `pack_filters`.  bias: (K,), or any where none is added.
    z: (N, I, J, K).
    """
    channels, filters, lanes = x.shape[3], z.shape[3], lanes_of(x)
    down, across = (z.shape[1] + TILE - 1) // TILE, (z.shape[2] + TILE - 1) // TILE
    tiles, at_once = z.shape[0] * down * across, _tiles_of_block(channels, filters)
    padded = _image(down * TILE + 2, across * TILE + 2, channels, x)
    step, out_step = at_once * channels + lanes, at_once * filters + lanes  # no multiples of a page, see `tiles`
    patches, products = aligned(NUM_PRODUCTS * step, x), aligned(NUM_PRODUCTS * out_step, x)
    edge, runs, flat = aligned(FEW_ROWS * 2 * lanes, x), zeros(1, np.int64), panels.reshape(-1)
    z_flat, part, offset = z.reshape(-1), aligned(TILE * TILE * filters, x), aligned(filters, x)
    floor = x.dtype.type(0 if epilogue == BIAS_RELU else -np.inf)
    for k in range(filters):
        offset[k] = x.dtype.type(0) if epilogue == AS_IS else bias[k]
    for first in range(0, tiles, at_once):
        stop = min(first + at_once, tiles)
        _transform_block(x, top, left, first, stop, across, padded, patches, step)
        for p in range(NUM_PRODUCTS):
            for k in range(0, filters, 2 * lanes):
                here = min(filters - k, 2 * lanes)
                multiply_into(
                    patches,
                    p * step,
                    channels,
                    1,
                    runs,
                    channels,
                    flat,
                    p * channels * filters + k * channels,
                    vectors_for(here, lanes),
                    products,
                    p * out_step + k,
                    filters,
                    stop - first,
                    here,
                    False,
                    edge,
                    AS_IS,
                    edge,
                )
        for tile in range(first, stop):
            n, at = tile // (down * across), tile % (down * across)
            i, j = at // across * TILE, at % across * TILE
            is_whole = i + TILE <= z.shape[1] and j + TILE <= z.shape[2]
            corner = ((n * z.shape[1] + i) * z.shape[2] + j) * filters
            target, target_at, row = (z_flat, corner, z.shape[2]) if is_whole else (part, 0 * corner, TILE)
            for k in range(0, filters, lanes):
                transform_to_outputs(
                    products,
                    (tile - first) * filters + k,
                    PATCH * out_step,
                    out_step,
                    target,
                    target_at + k,
                    row * filters,
                    filters,
                    offset,
                    k,
                    floor,
                )
            if not is_whole:
                length = min(TILE, z.shape[2] - j) * filters
                for r in range(min(TILE, z.shape[1] - i)):
                    source_at, target_at = r * TILE * filters, corner + r * z.shape[2] * filters
                    for k in range(length):
                        z_flat[target_at + k] = part[source_at + k]


@kernel
def add_filters_gradient(x: Array, top: int, left: int, dz: Array, d_weight: Array) -> None:
    """d_weight += the gradient of the filters from that of the outputs of `correlate`, block after block of tiles.

    dz: (N, I, J, K).  d_weight: (3, 3, C, K).  All else as in `correlate`.
    """
    channels, filters, lanes = x.shape[3], dz.shape[3], lanes_of(x)
    down, across = (dz.shape[1] + TILE - 1) // TILE, (dz.shape[2] + TILE - 1) // TILE
    tiles, at_once, size = dz.shape[0] * down * across, _tiles_of_block(channels, filters), channels * filters
    padded = _image(down * TILE + 2, across * TILE + 2, channels, x)
    outputs = _image(down * TILE, across * TILE, filters, x)
    step, out_step = at_once * channels + lanes, at_once * filters + lanes
    patches, panels = aligned(NUM_PRODUCTS * step, x), aligned(NUM_PRODUCTS * out_step, x)
    edge, runs, row = aligned(FEW_ROWS * 2 * lanes, x), zeros(1, np.int64), across * TILE * filters
    sums, flat_outputs, terms = aligned(NUM_PRODUCTS * size, x), outputs.reshape(-1), 0
    wide = wide_sums((tiles + at_once - 1) // at_once, sums.shape[0])
    sums[:] = 0
    for first in range(0, tiles, at_once):
        if terms == TERMS:
            end_chain(sums, wide)
            terms = 0
        terms += 1
        stop = min(first + at_once, tiles)
        _transform_block(x, top, left, first, stop, across, padded, patches, step)
        for tile in range(first, stop):
            n, at = tile // (down * across), tile % (down * across)
            if at == 0:
                _place(dz[n], 0, 0, outputs)
            corner = at // across * TILE * row + at % across * TILE * filters
            for k in range(0, filters, lanes):
                panel = k // (2 * lanes) * 2 * lanes
                target = panel * at_once + (tile - first) * min(filters - panel, 2 * lanes) + k - panel
                transform_outputs(flat_outputs, corner + k, row, filters, panels, target, PATCH * out_step, out_step)
        for p in range(NUM_PRODUCTS):
            for k in range(0, filters, 2 * lanes):
                here = min(filters - k, 2 * lanes)
                multiply_into(
                    patches,
                    p * step,
                    1,
                    channels,
                    runs,
                    stop - first,
                    panels,
                    p * out_step + k * at_once,
                    vectors_for(here, lanes),
                    sums,
                    p * size + k,
                    filters,
                    channels,
                    here,
                    True,
                    edge,
                    AS_IS,
                    edge,
                )
    end_sum(sums, wide)
    gradient, total = aligned(9 * lanes, x), d_weight.reshape(-1)
    for i in range(0, size, lanes):
        transform_to_filters(sums, i, PATCH * size, size, gradient, 0, 3 * lanes, lanes)
        for tap in range(9):
            for k in range(lanes):
                total[tap * size + i + k] += gradient[tap * lanes + k]

"""Matrix products: x is packed a block at a time, w a panel at a time, and multiplied while they stay in the caches.

Each element of a product is a sum over blocks of DEPTH terms, each a chain of fused multiply-adds in their order. So
it has the same bits wherever it stands, with any number of rows beside it, and on every processor that has fused
multiply-add.

N rows, C terms, K columns. All arrays are contiguous, and of one dtype in each call.
"""

from __future__ import annotations

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.kernels.few_rows import is_of_few, multiply_few
from dist_relu.kernels.jit import kernel, linked_kernel
from dist_relu.kernels.llvm import run_of, zeros
from dist_relu.kernels.packing import (
    DEPTH,
    aligned,
    lanes_of,
    pack,
    pack_rows,
    pack_transposed,
    padded,
    vectors_for,
)
from dist_relu.kernels.tiles import AS_IS, TALLEST, multiply_panel, pack_and_multiply
from dist_relu.kernels.vectors import VECTOR_BYTES

LONGEST = DEPTH + DEPTH // 4
"""Terms that are multiplied in one go if they are the last: a block of few terms would be spent on loading z."""

ROWS = 512
"""Rows of x that are packed at a time."""

FEW_PANELS, FEW_TERMS = 4, 32
"""For more of both x is packed: its rows push one another out of a cache, where they are 4096 bytes apart."""

FEW_ROWS = 12

_TALLEST = TALLEST[2]


@linked_kernel
def multiply_into(
    x: Array,
    x_at: int,
    x_row: int,
    x_term: int,
    x_runs: Array,
    length: int,
    panel: Array,
    panel_at: int,
    num_vectors: int,
    z: Array,
    z_at: int,
    z_row: int,
    num_rows: int,
    num_columns: int,
    adds: bool,
    bias: Array,
    epilogue: int,
    edge: Array,
) -> None:
    """Do what `multiply_panel` does, for rows of z that may be shorter than those of the panel.

    edge: (FEW_ROWS x lanes x 2,), scratch.
    """
    width = num_vectors * lanes_of(z)
    fits = num_columns >= width
    step = max(num_rows, 1) if fits else FEW_ROWS
    for first in range(0, num_rows, step):
        rows, i, j = min(num_rows - first, step), x_at + first * x_row, z_at + first * z_row
        if fits:
            target, target_at, target_row = z, j, z_row
        else:
            target, target_at, target_row = edge, first * 0, width
            if adds:
                for r in range(rows):
                    for k in range(num_columns):
                        edge[r * width + k] = z[j + r * z_row + k]
        multiply_panel(
            x,
            i,
            x_row,
            x_term,
            x_runs,
            length,
            panel,
            panel_at,
            num_vectors,
            target,
            target_at,
            target_row,
            rows,
            adds,
            bias,
            epilogue,
            x,
            0,
            0,
            0,
            0,
        )
        if not fits:
            for r in range(rows):
                for k in range(num_columns):
                    z[j + r * z_row + k] = edge[r * width + k]


@linked_kernel
def _multiply_panels(
    x: Array,
    x_at: int,
    x_row: int,
    x_term: int,
    w: Array,
    transposes_w: bool,
    start: int,
    stop: int,
    adds: bool,
    bias: Array,
    epilogue: int,
    z: Array,
    z_at: int,
    num_rows: int,
    columns: int,
    scratch: Array,
    panel: Array,
) -> None:
    """z = x·w, or z += x·w, for the terms from `start` to `stop`, a block after the other for each panel.

    x: flat, as in `multiply_panel`.  w, bias, epilogue: as in `product`.  z: flat, from z_at on (num_rows, columns).
    scratch: (FEW_ROWS + 1, row of a panel), panel: (DEPTH, row of a panel), both flat.
    """
    lanes, w_row = lanes_of(z), w.shape[1]
    width, runs, w_flat = 2 * lanes, zeros(1, np.int64), run_of(w, 0, w.size)
    offset, edge = run_of(scratch, 0, width), run_of(scratch, width, FEW_ROWS * width)
    for k in range(0, columns, width):
        here = min(columns - k, width)
        if epilogue != AS_IS:
            for i in range(here):
                offset[i] = bias[k + i]
        for first in range(start, stop, DEPTH):
            size, done, x_now, z_now = min(stop - first, DEPTH), 0, x_at + (first - start) * x_term, z_at + k
            last = epilogue if first + size == stop else AS_IS
            sums = adds or first > start
            if here < width or transposes_w or num_rows < _TALLEST:
                pack(w, transposes_w, first, size, k, k + here, panel)
            else:
                done, w_at = _TALLEST, first * w_row + k
                pack_and_multiply(
                    w_flat,
                    w_at,
                    w_row,
                    x,
                    x_now,
                    x_row,
                    x_term,
                    runs,
                    size,
                    panel,
                    z,
                    z_now,
                    columns,
                    sums,
                    offset,
                    last,
                )
            x_now, z_now = x_now + done * x_row, z_now + done * columns
            if here < width:
                vectors = vectors_for(here, lanes)
                multiply_into(
                    x,
                    x_now,
                    x_row,
                    x_term,
                    runs,
                    size,
                    panel,
                    0,
                    vectors,
                    z,
                    z_now,
                    columns,
                    num_rows,
                    here,
                    sums,
                    offset,
                    last,
                    edge,
                )
            else:
                num_ahead = size if k + width < columns else 0
                ahead_at, mask = first * w_row + k + width, -1
                if transposes_w:
                    ahead_at, mask = (k + width) * w_row + first, width - 1
                multiply_panel(
                    x,
                    x_now,
                    x_row,
                    x_term,
                    runs,
                    size,
                    panel,
                    0,
                    2,
                    z,
                    z_now,
                    columns,
                    num_rows - done,
                    sums,
                    offset,
                    last,
                    w_flat,
                    ahead_at,
                    w_row,
                    mask,
                    num_ahead,
                )


@kernel
def _product(
    x: Array,
    transposes_x: bool,
    start: int,
    stop: int,
    w: Array,
    transposes_w: bool,
    adds: bool,
    bias: Array,
    epilogue: int,
    z: Array,
) -> None:
    """Do what `product` does, with x where it is."""
    width, columns, depth = 2 * lanes_of(x), z.shape[1], x.shape[0] if transposes_x else x.shape[1]
    x_flat, z_flat, x_row, x_term = run_of(x, 0, x.size), run_of(z, 0, z.size), x.shape[1], 1
    if transposes_x:
        x_row, x_term = 1, x.shape[1]
    edge, panel_size = (FEW_ROWS + 1) * width, min(depth, DEPTH) * width
    scratch = aligned(edge + panel_size, x)
    panel = run_of(scratch, edge, panel_size)
    if depth == 0 and not adds:
        for i in range(z_flat.size):
            z_flat[i] = 0
    first = 0
    while first < depth:
        end = depth if depth - first <= LONGEST else first + DEPTH
        _multiply_panels(
            x_flat,
            start * x_row + first * x_term,
            x_row,
            x_term,
            w,
            transposes_w,
            first,
            end,
            adds or first > 0,
            bias,
            epilogue if end == depth else AS_IS,
            z_flat,
            0,
            stop - start,
            columns,
            scratch,
            panel,
        )
        first = end


@kernel
def _product_of_packed(
    x: Array,
    transposes_x: bool,
    start: int,
    stop: int,
    w: Array,
    transposes_w: bool,
    adds: bool,
    bias: Array,
    epilogue: int,
    z: Array,
) -> None:
    """Do what `product` does, with x packed."""
    width, columns, depth = 2 * lanes_of(x), z.shape[1], x.shape[0] if transposes_x else x.shape[1]
    x_flat, z_flat, num_rows = run_of(x, 0, x.size), run_of(z, 0, z.size), min(stop - start, ROWS)
    edge, panel_size, rows_size = (
        (FEW_ROWS + 1) * width,
        min(depth, DEPTH) * width,
        num_rows * padded(min(depth, LONGEST)),
    )
    scratch = aligned(edge + panel_size + rows_size, x)
    panel, rows = run_of(scratch, edge, panel_size), run_of(scratch, edge + panel_size, rows_size)
    for row in range(start, stop, max(num_rows, 1)):
        here, first = min(stop - row, num_rows), 0
        while first < depth:
            end = depth if depth - first <= LONGEST else first + DEPTH
            length = padded(end - first)
            if transposes_x:
                pack_transposed(x, row, here, first, length, rows)
            else:
                pack_rows(x_flat, row * x.shape[1] + first, x.shape[1], here, end - first, rows, length)
            _multiply_panels(
                rows,
                0,
                length,
                1,
                w,
                transposes_w,
                first,
                end,
                adds or first > 0,
                bias,
                epilogue if end == depth else AS_IS,
                z_flat,
                (row - start) * columns,
                here,
                columns,
                scratch,
                panel,
            )
            first = end


def product(
    x: Array,
    transposes_x: bool,
    start: int,
    stop: int,
    w: Array,
    transposes_w: bool,
    adds: bool,
    bias: Array,
    epilogue: int,
    z: Array,
) -> None:
    """z = x·w, or the transpose of either instead, for the rows of x (or xᵀ) from `start` to `stop` only.

    adds: z += x·w instead.  bias: (K,), or anything flat where none is added.  epilogue: AS_IS, BIAS or BIAS_RELU.
    z: (stop - start, K).

    There is a kernel for each way, since most models need one of them, and they take seconds to compile.
    """
    columns, depth = z.shape[1], x.shape[0] if transposes_x else x.shape[1]
    if depth > 0 and is_of_few(stop - start, depth, columns, transposes_w):
        way = multiply_few
    elif columns > FEW_PANELS * 2 * VECTOR_BYTES // x.itemsize and depth > FEW_TERMS:
        way = _product_of_packed
    else:
        way = _product
    way(x, transposes_x, start, stop, w, transposes_w, adds, bias, epilogue, z)


def multiply(x: Array, w: Array, bias: Array, epilogue: int, z: Array) -> None:
    """z = x·w, then what `epilogue` says.  x: (N, C), w: (C, K), bias: (K,), or any where none is added, z: (N, K)."""
    product(x, False, 0, len(x), w, False, False, bias, epilogue, z)


def add_multiplied(x: Array, w: Array, bias: Array, epilogue: int, z: Array) -> None:
    """z = z + x·w, then what `epilogue` says; shapes as in `multiply`."""
    product(x, False, 0, len(x), w, False, True, bias, epilogue, z)


_NO_BIAS = {np.dtype(name): np.empty(0, name) for name in ("float32", "float64")}


def multiply_by_transpose(x: Array, w: Array, z: Array) -> None:
    """z = x·wᵀ.  x: (N, K), w: (C, K), z: (N, C)."""
    product(x, False, 0, len(x), w, True, False, _NO_BIAS[x.dtype], AS_IS, z)


def multiply_transposed(x: Array, start: int, stop: int, w: Array, z: Array) -> None:
    """z = x[:, start:stop]ᵀ·w.  x: (N, C), w: (N, K), z: (stop - start, K)."""
    product(x, True, start, stop, w, False, False, _NO_BIAS[x.dtype], AS_IS, z)

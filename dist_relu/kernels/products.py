"""Matrix products: x is packed a block at a time, w a panel at a time, and multiplied while they stay in the caches.

Each element of a product is a sum over blocks of DEPTH terms, each a chain of fused multiply-adds in their order. So
it has the same bits wherever it stands, with any number of rows beside it, and on every processor that has fused
multiply-add.

N rows, C terms, K columns. All arrays are contiguous, and of one dtype in each call.
"""

from __future__ import annotations

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import kernel, linked_kernel
from dist_relu.kernels.llvm import run_of
from dist_relu.kernels.tiles import (
    AS_IS,
    TALLEST,
    VECTOR_BYTES,
    copy_vector,
    multiply_panel,
    multiply_row,
    pack_and_multiply,
    transpose_square,
)

DEPTH = 256
"""Terms of a block: x and panels of this depth stay in the second-level cache, one panel in the first."""

LONGEST = DEPTH + DEPTH // 4
"""Terms that are multiplied in one go if they are the last: a block of few terms would be spent on loading z."""

ROWS = 512
"""Rows of x that are packed at a time."""

FEW_PANELS, FEW_TERMS = 4, 32
"""For more of both x is packed: its rows push one another out of a cache, where they are 4096 bytes apart."""

FEW_ROWS = 12

_TALLEST = TALLEST[2]

_FEW = 4
"""Rows that are multiplied by w as it is: to pack it would take longer."""

_FEW_OF_SMALL = 8
"""Rows of a small product, or terms, up to which that is so."""

_SMALL = 1 << 15
"""Multiply-adds of a small product."""


@kernel
def lanes_of(array: Array) -> int:
    """Tell how many of an array's numbers a vector holds."""
    return VECTOR_BYTES // array.itemsize


@kernel
def aligned(size: int, like: Array) -> Array:
    """Allocate scratch memory of so many numbers that starts on a cache line."""
    memory = np.empty(size + 64 // like.itemsize, like.dtype)
    start = -memory.ctypes.data % 64 // like.itemsize
    return memory[start : start + size]


@kernel
def vectors_for(num_columns: int, lanes: int) -> int:
    """Tell how wide a panel for so many columns should be, in vectors."""
    return 2 if num_columns > lanes else 1


@linked_kernel
def pack(w: Array, transposes: bool, first: int, size: int, start: int, stop: int, panels: Array) -> None:
    """panels = the columns of w (or wᵀ) from `start` to `stop`, of the `size` rows from `first` on.

    One panel after another; what its last columns are, beyond `stop`, is left open.
    """
    lanes = lanes_of(w)
    width = 2 * lanes
    if transposes:
        for k in range(start, stop, width):
            narrow = vectors_for(stop - k, lanes) * lanes
            pack_transposed(w, first, size, k, narrow, run_of(panels, (k - start) * size, narrow * size))
        return
    flat, stride = run_of(w, 0, w.size), w.shape[1]
    for k in range(start, stop, width):
        narrow = vectors_for(stop - k, lanes) * lanes
        panel = (k - start) * size
        num_safe = min(max((flat.size - k - narrow) // stride + 1 - first, 0), size)  # rows that can be read as vectors
        source = first * stride + k
        if narrow == width:
            for c in range(num_safe):
                copy_vector(flat, source + c * stride, panels, panel + c * width)
                copy_vector(flat, source + c * stride + lanes, panels, panel + c * width + lanes)
        else:
            for c in range(num_safe):
                copy_vector(flat, source + c * stride, panels, panel + c * lanes)
        for c in range(num_safe, size):
            for i in range(min(narrow, flat.size - source - c * stride)):
                panels[panel + c * narrow + i] = flat[source + c * stride + i]


@linked_kernel
def pack_transposed(w: Array, first: int, size: int, row: int, width: int, panel: Array) -> None:
    """panel = rows of w from `row` on as columns, of the `size` terms from `first` on."""
    lanes, flat, stride = lanes_of(w), run_of(w, 0, w.size), w.shape[1]
    for k in range(0, width, lanes):
        num_rows = min(max(w.shape[0] - row - k, 0), lanes)
        whole = size // lanes * lanes if num_rows == lanes else 0
        for c in range(0, whole, lanes):
            transpose_square(flat, (row + k) * stride + first + c, stride, panel, c * width + k, width)
        for c in range(whole, size):
            for r in range(num_rows):
                panel[c * width + k + r] = w[row + k + r, first + c]


@kernel
def padded(length: int) -> int:
    """Tell how far apart rows of x are packed: whole vectors, and so that they don't meet in a set of a cache."""
    return (length + 31) // 16 * 16


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
def pack_rows(x: Array, at: int, row: int, num_rows: int, size: int, rows: Array, length: int) -> None:
    """rows = the first `size` numbers of rows of x, the first of which begins at `at`; both are flat.

    row, length: from a row to the next one, in x and in rows.
    """
    lanes = lanes_of(x)
    whole = size // lanes * lanes
    for r in range(num_rows):
        source, target = at + r * row, r * length
        for c in range(0, whole, lanes):
            copy_vector(x, source + c, rows, target + c)
        for c in range(whole, size):
            rows[target + c] = x[source + c]


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
    width, runs, w_flat = 2 * lanes, np.zeros(1, np.int64), run_of(w, 0, w.size)
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
def _is_of_few(rows: int, terms: int, columns: int, transposes_w: bool) -> bool:
    """Tell whether a product is one for `_multiply_few`."""
    is_small = rows * terms * columns <= _SMALL and min(rows, terms) <= _FEW_OF_SMALL
    return is_small or (rows <= _FEW and not transposes_w)


@linked_kernel
def _multiply_few(
    x: Array,
    transposes_x: bool,
    start: int,
    num_rows: int,
    w: Array,
    transposes_w: bool,
    adds: bool,
    bias: Array,
    epilogue: int,
    z: Array,
) -> None:
    """Do what `product` does, row by row and without panels: where there is little to do, they are most of the work."""
    lanes, columns, depth = lanes_of(x), z.shape[1], x.shape[0] if transposes_x else x.shape[1]
    x_row, x_term = (1, x.shape[1]) if transposes_x else (x.shape[1], 1)
    x_flat, z_flat, rows_of_w, w_row = x.reshape(-1), z.reshape(-1), w.reshape(-1), columns
    if transposes_w:
        w_row = (columns + lanes - 1) // lanes * lanes
        rows_of_w = aligned(min(depth, DEPTH) * w_row, w)
    for first in range(0, depth, DEPTH):
        size = min(depth - first, DEPTH)
        if transposes_w:
            pack_transposed(w, first, size, 0, w_row, rows_of_w)
        for row in range(num_rows):
            multiply_row(
                x_flat,
                (start + row) * x_row + first * x_term,
                x_term,
                size,
                rows_of_w,
                0 if transposes_w else first * w_row,
                w_row,
                z_flat,
                row * columns,
                columns,
                adds or first > 0,
                bias,
                epilogue if first + size == depth else AS_IS,
            )


@kernel
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
    """
    lanes, columns, depth = lanes_of(x), z.shape[1], x.shape[0] if transposes_x else x.shape[1]
    if depth > 0 and _is_of_few(stop - start, depth, columns, transposes_w):
        _multiply_few(x, transposes_x, start, stop - start, w, transposes_w, adds, bias, epilogue, z)
        return
    x_flat, z_flat, width, num_rows = run_of(x, 0, x.size), run_of(z, 0, z.size), 2 * lanes, stop - start
    packs_x = columns > FEW_PANELS * width and depth > FEW_TERMS
    rows_size = 0
    if packs_x:
        num_rows = min(num_rows, ROWS)
        rows_size = num_rows * padded(min(depth, LONGEST))
    edge, panel_size = (FEW_ROWS + 1) * width, min(depth, DEPTH) * width
    scratch = aligned(edge + panel_size + rows_size, x)
    panel, rows = run_of(scratch, edge, panel_size), run_of(scratch, edge + panel_size, rows_size)
    if depth == 0 and not adds:
        for i in range(z_flat.size):
            z_flat[i] = 0
    for row in range(start, stop, max(num_rows, 1)):
        here, first = min(stop - row, num_rows), 0
        while first < depth:
            end = depth if depth - first <= LONGEST else first + DEPTH
            x_row, x_term = x.shape[1], 1
            if transposes_x:
                x_row, x_term = 1, x.shape[1]
            factor, x_at, last = x_flat, row * x_row + first * x_term, epilogue if end == depth else AS_IS
            if packs_x:
                length = padded(end - first)
                if transposes_x:
                    pack_transposed(x, row, here, first, length, rows)
                else:
                    pack_rows(x_flat, x_at, x_row, here, end - first, rows, length)
                factor, x_at, x_row, x_term = rows, 0, length, 1
            z_at, sums = (row - start) * columns, adds or first > 0
            _multiply_panels(
                factor,
                x_at,
                x_row,
                x_term,
                w,
                transposes_w,
                first,
                end,
                sums,
                bias,
                last,
                z_flat,
                z_at,
                here,
                columns,
                scratch,
                panel,
            )
            first = end


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

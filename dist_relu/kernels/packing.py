"""Factors of matrix products, packed so that tiles read them one after another, and the memory that they are packed in.

N rows, C terms, K columns. All arrays are contiguous, and of one dtype in each call.
"""

from __future__ import annotations

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import kernel, linked_kernel
from dist_relu.kernels.llvm import empty, run_of
from dist_relu.kernels.vectors import VECTOR_BYTES, copy_vector, transpose_square

DEPTH = 256
"""Terms of a block: x and panels of this depth stay in the second-level cache, one panel in the first."""


@kernel
def lanes_of(array: Array) -> int:
    """Tell how many of an array's numbers a vector holds."""
    return VECTOR_BYTES // array.itemsize


@kernel
def aligned(size: int, like: Array) -> Array:
    """Allocate scratch memory of so many numbers that starts on a cache line."""
    return empty(size, like.dtype)


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

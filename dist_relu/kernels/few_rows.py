"""Products of few rows or few terms, without panels: to pack w would be most of the work.

They have the bits that tiles have: each element is the same sum over blocks of DEPTH terms.
"""

from __future__ import annotations

from typing import Any

from numba.core import cgutils, types
from numba.extending import intrinsic

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import kernel
from dist_relu.kernels.llvm import array_data
from dist_relu.kernels.packing import DEPTH, aligned, lanes_of, pack_transposed
from dist_relu.kernels.tiles import AS_IS, BIAS, BIAS_RELU
from dist_relu.kernels.vectors import Vectors

_FEW = 4
"""Rows that are multiplied by w as it is: to pack it would take longer."""

_FEW_OF_SMALL = 8
"""Rows of a small product, or terms, up to which that is so."""

_SMALL = 1 << 15
"""Multiply-adds of a small product."""


def is_of_few(rows: int, terms: int, columns: int, transposes_w: bool) -> bool:
    """Tell whether a product is one for `multiply_few`."""
    is_small = rows * terms * columns <= _SMALL and min(rows, terms) <= _FEW_OF_SMALL
    return is_small or (rows <= _FEW and not transposes_w)


@kernel
def multiply_few(
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
        for row in range(stop - start):
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


@intrinsic
def multiply_row(
    typing_context: Any,
    x: Any,
    x_at: Any,
    x_term: Any,
    length: Any,
    w: Any,
    w_at: Any,
    w_row: Any,
    z: Any,
    z_at: Any,
    num_columns: Any,
    adds: Any,
    bias: Any,
    epilogue: Any,
) -> Any:
    """z = x·w, or z += x·w where it `adds`, for one row and a w that is not packed; then what `epilogue` says.

    All arrays are flat. Term t of x stands at x_at + t x_term, row t of w begins at w_at + t w_row, and z at z_at.
    """
    i, flag = types.int64, types.boolean
    signature = types.none(x, i, i, i, w, i, i, z, i, i, flag, bias, i)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        num_columns = args[9]
        index, done = num_columns.type, num_columns.type(0)
        vectors = Vectors(builder, signature.args[0])
        for num_vectors in (_MOST_IN_A_ROW, 1):
            width = index(num_vectors * vectors.lanes)
            stop = builder.sub(num_columns, builder.srem(builder.sub(num_columns, done), width))
            with cgutils.for_range_slice(builder, done, stop, width, index) as (column, _):
                _store_row(context, builder, signature, args, column, num_vectors, None)
            done = stop
        left = builder.sub(num_columns, done)
        with builder.if_then(builder.icmp_signed(">", left, index(0))):
            _store_row(context, builder, signature, args, done, 1, vectors.first_lanes(left))
        return context.get_dummy_value()

    return signature, codegen


_MOST_IN_A_ROW = 4
"""Vectors of a row at once: as many sums as one unit, or as half of two, is kept busy by."""


def _store_row(
    context: Any, builder: Any, signature: Any, args: Any, start: Any, num_vectors: int, lanes: Any | None
) -> None:
    """Emit so many vectors of the row that `multiply_row` describes, from `start` on, or only some `lanes` of one."""
    x, w, z, bias = (array_data(context, builder, signature, args, n) for n in (0, 4, 7, 11))
    _, x_at, x_term, length, _, w_at, w_row, _, z_at, _, adds, _, epilogue = args
    vectors = Vectors(builder, signature.args[0])
    index = x_at.type
    columns = [builder.add(start, index(v * vectors.lanes)) for v in range(num_vectors)]
    sums = [cgutils.alloca_once(builder, vectors.type) for _ in columns]
    places = [(total, column, builder.add(z_at, column)) for total, column in zip(sums, columns, strict=True)]
    for total in sums:
        builder.store(vectors.zero, total)
    with cgutils.for_range(builder, length, intp=index) as term:
        head = builder.gep(x, [builder.add(x_at, builder.mul(x_term, term.index))])
        factor = vectors.broadcast(head, index(0))
        row = builder.add(w_at, builder.mul(w_row, term.index))
        for total, column, _ in places:
            numbers = vectors.load(w, builder.add(row, column), lanes)
            builder.store(vectors.fma(factor, numbers, builder.load(total)), total)
    with builder.if_then(adds):
        for total, _, at in places:
            builder.store(builder.fadd(vectors.load(z, at, lanes), builder.load(total)), total)
    with builder.if_then(builder.icmp_signed(">=", epilogue, index(BIAS))):
        for total, column, _ in places:
            builder.store(builder.fadd(builder.load(total), vectors.load(bias, column, lanes)), total)
    with builder.if_then(builder.icmp_signed("==", epilogue, index(BIAS_RELU))):
        for total in sums:
            builder.store(vectors.relu(builder.load(total)), total)
    for total, _, at in places:
        vectors.store(builder.load(total), z, at, lanes)

"""Tiles of a matrix product in the processor's vector registers.

LLVM vectorises plain loops of this kind to a fraction of the processor's peak; written out in its own terms they
reach it. The names follow the product z = x·w: a tile of z is some rows of x times a panel, which is some columns of w,
packed so that each row of the panel is two whole vectors (or one, where w is narrow). The first tile of a panel may
pack it on its way, since it has loads and stores to spare; the others fetch what the next panel is made of.

Every element of a tile is one chain of fused multiply-adds, in the order of the terms. So its bits depend neither on
the size of tiles, nor on where in the matrix it stands, nor on the width of the processor's vectors.
"""

from __future__ import annotations

from typing import Any

from numba.core import cgutils, types
from numba.extending import intrinsic

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import linked_kernel
from dist_relu.kernels.llvm import array_data
from dist_relu.kernels.registers import REGISTERS
from dist_relu.kernels.vectors import LINE_BYTES, VECTOR_BYTES, Vectors

AS_IS, BIAS, BIAS_RELU = 0, 1, 2
"""The epilogue of a tile, which is what comes after its last term: nothing, a bias, or a bias and ReLU."""

TALLEST = {1: 12, 2: 12 if REGISTERS.number >= 32 else 6}
"""Rows of a tile by the number of its vectors.

Its sums fill the registers, but for those of a row of the panel and of a factor. They are at least the eight or ten
that keep two units busy, each of which takes four or five cycles for a fused multiply-add.
"""

_ROWS_PER_POINTER = 3
"""Rows of x that one pointer serves: processors add a distance to it, or twice that."""
_TERMS_AHEAD = 16
"""How many terms before they are multiplied rows of w are fetched by the tile that packs them."""
_FIRST_LEVEL, _SECOND_LEVEL = 3, 2
"""Of the caches, as LLVM names them for prefetches."""
_NEXT_PANEL_LEVEL = _FIRST_LEVEL if VECTOR_BYTES < LINE_BYTES else _SECOND_LEVEL
"""Two panels of 256 rows fit into a first-level cache of 32 kB, unless they are 32 kB each."""


def _store_tile(
    context: Any, builder: Any, signature: Any, args: Any, num_rows: int, num_vectors: int, *, packs: bool = False
) -> None:
    """Emit a tile of so many rows and vectors: the first rows of the product that `multiply_panel` describes.

    packs: the panel, as `pack_and_multiply` does.
    """
    x, x_runs, panel, z, bias = (array_data(context, builder, signature, args, n) for n in (0, 4, 7, 9, 14))
    _, x_at, x_row, x_term, _, num_runs, length, _, panel_at, _, z_at, z_row, _, adds, _, epilogue, *rest = args
    vectors = Vectors(builder, signature.args[0])
    index = x_at.type
    places = [(r, v) for r in range(num_rows) for v in range(num_vectors)]
    columns = [index(v * vectors.lanes) for v in range(num_vectors)]
    width = index(num_vectors * vectors.lanes)
    for r in range(num_rows):
        row = builder.add(z_at, builder.mul(z_row, index(r)))
        vectors.prefetch(z, row, num_vectors, _FIRST_LEVEL, writes=True)
    sums = {place: cgutils.alloca_once(builder, vectors.type) for place in places}
    for total in sums.values():
        builder.store(vectors.zero, total)
    heads = [cgutils.alloca_once(builder, x.type) for _ in range(0, num_rows, _ROWS_PER_POINTER)]
    row_bytes = builder.mul(x_row, index(vectors.number_bytes))

    def row_of_panel(panel_now: Any, term: Any) -> list[Any]:
        """Load the row of the panel for a term; it may come from w, and go to the panel first."""
        if not packs:
            return [vectors.load(panel_now, column) for column in columns]
        w_at, w_row = rest[1:]
        w = array_data(context, builder, signature, args, len(args) - len(rest))
        source = builder.gep(w, [builder.add(w_at, builder.mul(w_row, term))])
        vectors.prefetch(source, builder.mul(w_row, index(_TERMS_AHEAD)), num_vectors, _FIRST_LEVEL)
        row = [vectors.load(source, column) for column in columns]
        for vector, column in zip(row, columns, strict=True):
            vectors.store(vector, panel_now, column)
        return row

    with cgutils.for_range(builder, num_runs, intp=index) as run:
        x_run = builder.add(x_at, builder.load(builder.gep(x_runs, [run.index])))
        first_term = builder.add(panel_at, builder.mul(builder.mul(run.index, length), width))
        panel_run = builder.gep(panel, [first_term])
        for i, head in enumerate(heads):
            first = builder.add(x_run, builder.mul(x_row, index(i * _ROWS_PER_POINTER)))
            builder.store(builder.gep(x, [first]), head)
        with cgutils.for_range(builder, length, intp=index) as term:
            panel_now = builder.gep(panel_run, [builder.mul(term.index, width)])
            w = row_of_panel(panel_now, term.index)
            for i, head in enumerate(heads):
                pointer = vectors.opaque(builder.load(head))
                for below in range(min(_ROWS_PER_POINTER, num_rows - i * _ROWS_PER_POINTER)):
                    r = i * _ROWS_PER_POINTER + below
                    factor = vectors.broadcast(pointer, builder.mul(row_bytes, index(below)))
                    for v in range(num_vectors):
                        builder.store(vectors.fma(factor, w[v], builder.load(sums[r, v])), sums[r, v])
                builder.store(builder.gep(pointer, [x_term]), head)
    at = {(r, v): builder.add(builder.add(z_at, builder.mul(z_row, index(r))), columns[v]) for r, v in places}
    with builder.if_then(adds):
        for place in places:
            before = vectors.load(z, at[place])
            builder.store(builder.fadd(before, builder.load(sums[place])), sums[place])
    with builder.if_then(builder.icmp_signed(">=", epilogue, index(BIAS))):
        for r, v in places:
            builder.store(builder.fadd(builder.load(sums[r, v]), vectors.load(bias, columns[v])), sums[r, v])
    with builder.if_then(builder.icmp_signed("==", epilogue, index(BIAS_RELU))):
        for place in places:
            builder.store(vectors.relu(builder.load(sums[place])), sums[place])
    for place in places:
        vectors.store(builder.load(sums[place]), z, at[place])


def _heights(num_vectors: int) -> list[int]:
    """List how tall tiles may be, the tallest ones first."""
    tallest = TALLEST[num_vectors]
    return [tallest, *(rows for rows in (8, 4, 2, 1) if rows < tallest)]


@intrinsic
def _tiles(
    typing_context: Any,
    x: Any,
    x_at: Any,
    x_row: Any,
    x_term: Any,
    x_runs: Any,
    num_runs: Any,
    length: Any,
    panel: Any,
    panel_at: Any,
    z: Any,
    z_at: Any,
    z_row: Any,
    num_rows: Any,
    adds: Any,
    bias: Any,
    epilogue: Any,
    num_vectors: Any,
    ahead: Any,
    ahead_at: Any,
    ahead_row: Any,
    ahead_mask: Any,
    share: Any,
) -> Any:
    """Cover any number of rows with tiles, the tallest ones first; the arguments are those of `multiply_panel`.

    share: how many rows are fetched ahead for a row of z, in 2¹⁶ths.
    """
    if not x.dtype == panel.dtype == z.dtype == bias.dtype:
        return None
    i, flag = types.int64, types.boolean
    tile = x, i, i, i, x_runs, i, i, panel, i, z, i, i, i, flag, bias, i
    signature = types.none(*tile, i, ahead, i, i, i, i)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x_at, x_row, z_at, z_row, num_rows = (args[n] for n in (1, 2, 10, 11, 12))
        num_vectors, _, ahead_at, ahead_row, ahead_mask, share = args[len(tile) :]
        index, vectors = num_rows.type, Vectors(builder, signature.args[0])
        fetched = array_data(context, builder, signature, args, len(tile) + 1)

        def fetch_ahead(row: Any, height: int, width: int) -> None:
            ends = (builder.ashr(builder.mul(r, share), index(16)) for r in (row, builder.add(row, index(height))))
            with cgutils.for_range_slice(builder, *ends, index(1), index) as (number, _):
                line = builder.mul(builder.and_(number, ahead_mask), ahead_row)
                part = builder.and_(number, builder.not_(ahead_mask))
                at = builder.add(ahead_at, builder.add(line, part))
                vectors.prefetch(fetched, at, width, _NEXT_PANEL_LEVEL)

        for width, tallest in TALLEST.items():
            with builder.if_then(builder.icmp_signed("==", num_vectors, index(width))):
                done = index(0)
                for height in _heights(width):
                    left = builder.sub(num_rows, done)
                    last = builder.srem(left, index(height))
                    stop = builder.sub(num_rows, last)
                    if height == 6:  # two tiles of 4 rows take less than those of 6 and 2, whose sums are too few
                        splits = builder.and_(
                            builder.icmp_signed(">=", left, index(8)),
                            builder.icmp_signed("==", builder.and_(last, index(-2)), index(2)),
                        )
                        stop = builder.select(splits, builder.sub(stop, index(height)), stop)
                    with cgutils.for_range_slice(builder, done, stop, index(height), index) as (row, _):
                        if height == tallest:
                            fetch_ahead(row, height, width)
                        here = list(args[: len(tile)])
                        here[1] = builder.add(x_at, builder.mul(x_row, row))
                        here[10] = builder.add(z_at, builder.mul(z_row, row))
                        _store_tile(context, builder, signature, here, height, width)
                    done = stop
        return context.get_dummy_value()

    return signature, codegen


@linked_kernel
def multiply_panel(
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
    adds: bool,
    bias: Array,
    epilogue: int,
    ahead: Array,
    ahead_at: int,
    ahead_row: int,
    ahead_mask: int,
    num_ahead: int,
) -> None:
    """z = x·panel, or z += x·panel where it `adds`, for rows of `num_vectors` whole vectors, 1 or 2.

    All arrays are flat. Row r of x has its term t of run s at x_at + r x_row + x_runs[s] + t x_term, with t < length;
    row r of z begins at z_at + r z_row. panel, from panel_at on: (runs, length, num_vectors lanes).  bias: a row of the
    panel.  epilogue: AS_IS, BIAS or BIAS_RELU.

    ahead, flat, is what will be multiplied next; meanwhile the first `num_ahead` rows of it, as long as a row of the
    panel, are fetched into a cache. Row n begins at ahead_at + (n & mask) ahead_row + (n & ~mask).
    """
    num_runs, share = x_runs.shape[0], (num_ahead << 16) // max(num_rows, 1)
    _tiles(
        x,
        x_at,
        x_row,
        x_term,
        x_runs,
        num_runs,
        length,
        panel,
        panel_at,
        z,
        z_at,
        z_row,
        num_rows,
        adds,
        bias,
        epilogue,
        num_vectors,
        ahead,
        ahead_at,
        ahead_row,
        ahead_mask,
        share,
    )


@intrinsic
def _packing_tile(
    typing_context: Any,
    x: Any,
    x_at: Any,
    x_row: Any,
    x_term: Any,
    x_runs: Any,
    num_runs: Any,
    length: Any,
    panel: Any,
    panel_at: Any,
    z: Any,
    z_at: Any,
    z_row: Any,
    num_rows: Any,
    adds: Any,
    bias: Any,
    epilogue: Any,
    w: Any,
    w_at: Any,
    w_row: Any,
) -> Any:
    """Multiply the tallest tile with a panel that it packs; all arguments are those of `pack_and_multiply`."""
    if not x.dtype == panel.dtype == z.dtype == bias.dtype == w.dtype:
        return None
    i, flag = types.int64, types.boolean
    signature = types.none(x, i, i, i, x_runs, i, i, panel, i, z, i, i, i, flag, bias, i, w, i, i)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _store_tile(context, builder, signature, args, TALLEST[2], 2, packs=True)
        return context.get_dummy_value()

    return signature, codegen


@linked_kernel
def pack_and_multiply(
    w: Array,
    w_at: int,
    w_row: int,
    x: Array,
    x_at: int,
    x_row: int,
    x_term: int,
    x_runs: Array,
    length: int,
    panel: Array,
    z: Array,
    z_at: int,
    z_row: int,
    adds: bool,
    bias: Array,
    epilogue: int,
) -> None:
    """Do what `multiply_panel` does with two vectors, for as many rows as the tallest tile has, and pack the panel.

    w: flat; row t of the panel begins at w_at + t w_row there.  x_runs: (1,).
    """
    _packing_tile(
        x,
        x_at,
        x_row,
        x_term,
        x_runs,
        1,
        length,
        panel,
        0,
        z,
        z_at,
        z_row,
        0,
        adds,
        bias,
        epilogue,
        w,
        w_at,
        w_row,
    )

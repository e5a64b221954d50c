"""The flat vector of parameters is cut into pieces.

These depend on the model alone, so that whatever is computed by pieces does not depend on the workers.
P parameters.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil, prod

from dist_relu.kernels.ordered_sum import BLOCK
from dist_relu.nn import Param
from dist_relu.partition import bounds

TAIL = 2
"""Numbers behind the gradient in a slot: the summed loss and the number of correct predictions.

So they are summed at no extra cost.
"""

_SLOT_CHUNK = 16 * BLOCK
_TILE_SIZE = 128 * 1024
_MIN_TILE_ROWS = 128
_PIECES_PER_TILE = 8
_MIN_PIECES, _MIN_PIECE_ROWS = 16, 4


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A piece has the elements from `start` to `stop` of the flat vector; they belong to `param`, or begin there.

    rows: of the weight, if its gradient is a product.  column: in the slots, otherwise.
    """

    param: int
    start: int
    stop: int
    rows: tuple[int, int] | None = None
    column: int = 0


def cut(params: Sequence[Param], products: Collection[int], *, by_param: bool) -> list[Piece]:
    """Cut the flat vector into pieces, in their order.

    products: the numbers of the parameters whose gradients are products.  by_param: no piece holds elements of two
    parameters.
    """
    pieces: list[Piece] = []
    start = column = 0

    def kind(item: tuple[int, Param]) -> tuple[bool, float | None, int]:
        number, param = item
        return number in products, param.momentum, number if by_param else 0

    for (is_product, _, _), run in groupby(enumerate(params), kind):
        neighbours = list(run)
        if is_product:
            for number, param in neighbours:
                num_inputs, num_units = param.shape
                for first, stop in _cut_rows(num_inputs, num_units):
                    begin, end = start + first * num_units, start + stop * num_units
                    pieces.append(Piece(param=number, start=begin, stop=end, rows=(first, stop)))
                start += prod(param.shape)
        else:  # neighbours in the vector are neighbours in the slots
            size = sum(prod(param.shape) for _, param in neighbours)
            for first, stop in bounds(size, ceil(size / _SLOT_CHUNK)):
                pieces.append(
                    Piece(param=neighbours[0][0], start=start + first, stop=start + stop, column=column + first)
                )
            start += size
            column += size
    return pieces


def group_tiles(numbers: range, pieces: Sequence[Piece]) -> list[range]:
    """Cut a worker's pieces into chunks: those of one weight into products that are about a tile each."""
    chunks: list[range] = []
    for _, run in groupby(numbers, lambda number: pieces[number].param if pieces[number].rows else -1 - number):
        neighbours = list(run)
        first, num_tiles = neighbours[0], _num_tiles(join(range(neighbours[0], neighbours[-1] + 1), pieces))
        chunks += [range(first + start, first + stop) for start, stop in bounds(len(neighbours), num_tiles)]
    return chunks


def join(numbers: range, pieces: Sequence[Piece]) -> Piece:
    """Return neighbours as one piece."""
    first, last = pieces[numbers.start], pieces[numbers.stop - 1]
    rows = (first.rows[0], last.rows[1]) if first.rows and last.rows else None
    return Piece(param=first.param, start=first.start, stop=last.stop, rows=rows, column=first.column)


def costs_of(pieces: Sequence[Piece], num_rows: int, num_vectors: int, batch_size: int, itemsize: int) -> list[float]:
    """Estimate the seconds that each piece takes; only proportions matter.

    num_rows: of slots.  num_vectors: of a generation.
    """
    traffic_bytes = itemsize * (num_rows + 2 * num_vectors)
    return [_cost_s(piece, traffic_bytes, batch_size) for piece in pieces]


def largest_tile(pieces: Sequence[Piece]) -> int:
    """Tell how many elements the product of a chunk can have at most: a tile and a piece."""
    products = [piece for piece in pieces if piece.rows]
    most = max(
        (_tile_rows(_num_columns(piece)) * _num_columns(piece) + piece.stop - piece.start for piece in products),
        default=0,
    )
    return min(sum(piece.stop - piece.start for piece in products), most)


def _cost_s(piece: Piece, traffic_bytes: int, batch_size: int) -> float:
    """Estimate the time that a piece takes; only proportions matter.  traffic_bytes: for each element."""
    size = piece.stop - piece.start
    num_flops = 2.0 * batch_size * size if piece.rows else 0.0
    return 2e-7 + num_flops / 100e9 + size * traffic_bytes / 13e9


def _cut_rows(num_rows: int, num_columns: int) -> Sequence[tuple[int, int]]:
    """Cut the rows of a weight into pieces, of which several make a tile, so that workers get equal shares."""
    rows = _tile_rows(num_columns) // _PIECES_PER_TILE
    return bounds(num_rows, max(ceil(num_rows / rows), min(_MIN_PIECES, ceil(num_rows / _MIN_PIECE_ROWS))))


def _num_tiles(piece: Piece) -> int:
    """Count the tiles that a piece is worth."""
    return ceil((piece.rows[1] - piece.rows[0]) / _tile_rows(_num_columns(piece))) if piece.rows else 1


def _tile_rows(num_columns: int) -> int:
    """Tell how many rows of a gradient are small enough for the cache and large enough for a fast product."""
    return max(_TILE_SIZE // num_columns, _MIN_TILE_ROWS)


def _num_columns(piece: Piece) -> int:
    """Count the columns of the weight that a piece has rows of."""
    assert piece.rows
    return (piece.stop - piece.start) // (piece.rows[1] - piece.rows[0])

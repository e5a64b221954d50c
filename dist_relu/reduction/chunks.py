"""How the flat vector of parameters is cut into pieces, and where their gradients come from.

The pieces depend on the model alone, so that whatever is computed by pieces does not depend on the workers.
P parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil, prod
from typing import Any, final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.kernels.ordered_sum import BLOCK
from dist_relu.nn import Constant, Param, Sequential
from dist_relu.nn.passes import Layout
from dist_relu.partition import SummationTree, bounds, stack_depth
from dist_relu.reduction.slots import Slots
from dist_relu.reduction.sources import ProductSource, SlotSource, Source

_SLOT_CHUNK = 16 * BLOCK
_TILE_SIZE = 128 * 1024
_MIN_TILE_ROWS = 128
_MIN_TILES = 4


@dataclass(frozen=True)
class Piece:
    """The elements from `start` to `stop` of the flat vector; they belong to parameter `param`, or begin there.

    rows: of the weight, if its gradient is a product.  column: in the slots, otherwise.
    """

    param: int
    start: int
    stop: int
    rows: tuple[int, int] | None = None
    column: int = 0


def cut(model: Sequential, layout: Layout, *, by_param: bool) -> list[Piece]:
    """The pieces of the flat vector, in their order.  by_param: no piece holds elements of two parameters."""
    pieces: list[Piece] = []
    start = column = 0

    def kind(item: tuple[int, Param]) -> tuple[bool, float | None, int]:
        number, param = item
        return number in layout.products, param.momentum, number if by_param else 0

    for (is_product, _, _), run in groupby(enumerate(model.params), kind):
        params = list(run)
        if is_product:
            for number, param in params:
                num_inputs, num_units = param.shape
                for first, stop in _tiles(num_inputs, num_units):
                    pieces.append(Piece(number, start + first * num_units, start + stop * num_units, (first, stop)))
                start += prod(param.shape)
        else:  # neighbours in the vector are neighbours in the slots
            size = sum(prod(param.shape) for _, param in params)
            for first, stop in bounds(size, ceil(size / _SLOT_CHUNK)):
                pieces.append(Piece(params[0][0], start + first, start + stop, column=column + first))
            start += size
            column += size
    return pieces


@dataclass(frozen=True)
class Chunk:
    """A piece, or several neighbours, that one worker sums and updates at a time.

    parts: the number of each piece, with its elements.  param: the one that the chunk belongs to, or begins in.
    generations: for both of them, the chunk of the parameters, of each optimiser state, and of the average.
    """

    parts: Sequence[tuple[int, slice]]
    param_number: int
    param: Param
    source: Source
    generations: Sequence[Sequence[Array]]

    @property
    def size(self) -> int:
        return len(self.generations[0][0])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.generations[0][0].dtype

    @property
    def is_trained(self) -> bool:
        """Whether it belongs to the optimiser; otherwise it holds running means."""
        return self.param.momentum is None

    @property
    def is_weight(self) -> bool:
        """Whether it is of a parameter of two dimensions or more: no bias, no scale."""
        return len(self.param.shape) > 1


@final
class Sources:
    """Where the gradient of a piece comes from, summed over some of the shards.

    arrays: those of the arena.
    """

    def __init__(
        self,
        model: Sequential,
        layout: Layout,
        pieces: Sequence[Piece],
        arrays: Sequence[Array],
        slots: Slots,
        shards: int,
    ) -> None:
        self._params = model.params
        self._layout = layout
        self._arrays = arrays
        self._slots = slots
        self._tree = tree = SummationTree(shards)
        carries, _ = tree.fold(tree.leaves(0, shards))
        self._scratch = np.empty((stack_depth(carries), _largest_tile(pieces)), model.dtype)

    def source(self, piece: Piece, shards: range) -> Source:
        """shards: one subtree of the summation tree, or all."""
        if piece.rows is None:
            return self._slots.source(piece.column, shards)
        num_inputs, num_units = self._params[piece.param].shape
        x_buffer, dz_buffer = self._layout.products[piece.param]
        x = self._arrays[x_buffer].reshape(-1, num_inputs)
        dz = self._arrays[dz_buffer].reshape(-1, num_units)
        carries, _ = self._tree.fold(self._tree.leaves(shards.start, shards.stop))
        return ProductSource(x, dz, len(x) // len(self._arrays[0]), *piece.rows, carries, self._scratch)


def joined(numbers: range, pieces: Sequence[Piece]) -> list[range]:
    """Cut a worker's pieces into chunks: pieces of one weight are worth a single product, if they fit in the cache."""
    chunks: list[range] = []
    for number in numbers:
        if chunks:
            first, last, this = pieces[chunks[-1].start], pieces[chunks[-1].stop - 1], pieces[number]
            same_weight = first.rows and this.rows and last.param == this.param
            if same_weight and this.stop - first.start <= _TILE_SIZE:
                chunks[-1] = range(chunks[-1].start, number + 1)
                continue
        chunks.append(range(number, number + 1))
    return chunks


def piece_of(numbers: range, pieces: Sequence[Piece]) -> Piece:
    """Neighbours as one piece."""
    first, last = pieces[numbers.start], pieces[numbers.stop - 1]
    rows = (first.rows[0], last.rows[1]) if first.rows and last.rows else None
    return Piece(first.param, first.start, last.stop, rows, first.column)


def chunk_of(numbers: range, pieces: Sequence[Piece], model: Sequential, source: Source, generations: Array) -> Chunk:
    """The pieces of these numbers as a chunk.  generations: (2, 1 + states, P)."""
    piece = piece_of(numbers, pieces)
    views = [[row[piece.start : piece.stop] for row in generation] for generation in generations]
    parts = [(i, slice(pieces[i].start - piece.start, pieces[i].stop - piece.start)) for i in numbers]
    return Chunk(parts, piece.param, model.params[piece.param], source, views)


def costs_of(pieces: Sequence[Piece], num_rows: int, num_vectors: int, batch_size: int, itemsize: int) -> list[float]:
    """The seconds that each piece takes, roughly; only proportions matter.

    num_rows: of slots.  num_vectors: of a generation.
    """
    traffic_bytes = itemsize * (num_rows + 2 * num_vectors)
    return [_cost_s(piece, traffic_bytes, batch_size) for piece in pieces]


def empty_chunks(num_vectors: int, dtype: np.dtype[Any]) -> tuple[list[Piece], list[Chunk]]:
    """Chunks without elements, one trained and one of running means, with their pieces: to load kernels with."""
    params = [Param("", (0, 0), Constant(), 1, 1), Param("", (0,), Constant(), 1, 1, momentum=0.5)]
    nothing = [[np.empty(0, dtype)] * num_vectors] * 2
    source = SlotSource(np.empty((1, 0), dtype), 0, [0])
    chunks = [Chunk([(i, slice(0, 0))], i, param, source, nothing) for i, param in enumerate(params)]
    return [Piece(number, 0, 0) for number in range(len(params))], chunks


def _cost_s(piece: Piece, traffic_bytes: int, batch_size: int) -> float:
    """The time that a piece takes, roughly; only proportions matter.  traffic_bytes: for each element."""
    size = piece.stop - piece.start
    num_flops = 2.0 * batch_size * size if piece.rows else 0.0
    return 3e-6 + num_flops / 200e9 + size * traffic_bytes / 20e9


def _tiles(num_rows: int, num_cols: int) -> Sequence[tuple[int, int]]:
    """Cut the rows of a weight into pieces.

    Small enough for the cache, large enough for a fast product, and several for the workers to share.
    """
    rows = max(_TILE_SIZE // num_cols, _MIN_TILE_ROWS)
    return bounds(num_rows, max(ceil(num_rows / rows), min(_MIN_TILES, num_rows)))


def _largest_tile(pieces: Sequence[Piece]) -> int:
    """Elements of the largest product that a chunk can be."""
    products = [piece.stop - piece.start for piece in pieces if piece.rows]
    return max([min(sum(products), _TILE_SIZE), *products])

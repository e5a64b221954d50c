"""A chunk is updated at a time: a part of the flat vector in both generations, and where its gradient comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.nn import Constant, Param
from dist_relu.reduction.pieces import Piece, join
from dist_relu.reduction.plan import ReductionPlan
from dist_relu.reduction.sources import SlotSource, Source


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A chunk is a piece, or several neighbours, that one worker sums and updates at a time.

    place: in the flat vector.  parts: the number of each piece, with its elements.
    param: the one that the chunk belongs to, or begins in.
    generations: for both of them, the chunk of the parameters, of each optimiser state, and of the average.
    """

    place: slice
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
        """Tell whether it belongs to the optimiser; otherwise it holds running means."""
        return self.param.momentum is None

    @property
    def is_weight(self) -> bool:
        """Tell whether it is of a parameter of two dimensions or more: no bias, no scale."""
        return len(self.param.shape) > 1


def chunks_of(
    plan: ReductionPlan, rank: int, params: Sequence[Param], sources: Sequence[Source], generations: Array
) -> list[Chunk]:
    """Make the chunks of a worker.  sources: of each, see `Reducer.sources`.  generations: (2, vectors, P)."""
    chunks = []
    for numbers, source in zip(plan.chunks[rank], sources, strict=True):
        piece = join(numbers, plan.pieces)
        chunks.append(
            Chunk(
                place=slice(piece.start, piece.stop),
                parts=[
                    (i, slice(plan.pieces[i].start - piece.start, plan.pieces[i].stop - piece.start)) for i in numbers
                ],
                param_number=piece.param,
                param=params[piece.param],
                source=source,
                generations=[[row[piece.start : piece.stop] for row in generation] for generation in generations],
            )
        )
    return chunks


def empty_chunks(num_vectors: int, dtype: np.dtype[Any]) -> tuple[list[Piece], list[Chunk]]:
    """Make chunks without elements, one trained and one of running means, with their pieces: to load kernels with."""
    params = [Param("", (0, 0), Constant(), 1, 1), Param("", (0,), Constant(), 1, 1, momentum=0.5)]
    nothing = [[np.empty(0, dtype)] * num_vectors] * 2
    source = SlotSource(np.empty((1, 0), dtype), 0, [0])
    chunks = [
        Chunk(
            place=slice(0, 0), parts=[(i, slice(0, 0))], param_number=i, param=param, source=source, generations=nothing
        )
        for i, param in enumerate(params)
    ]
    return [Piece(param=number, start=0, stop=0) for number in range(len(params))], chunks

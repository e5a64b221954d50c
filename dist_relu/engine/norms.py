"""Nobody can form the norms of gradients, parameters and steps alone, so all workers add the same numbers.

Whoever updates a piece of the flat vector measures its sum of squares, in float64. Every worker then adds those numbers
in the order of the pieces; so the bits of a norm do not depend on who measured what.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.kernels import norms as kernels
from dist_relu.partition import PartialSums
from dist_relu.reduction.chunks import Chunk
from dist_relu.reduction.pieces import Piece

GRADIENT, PARAM, DIRECTION = 0, 1, 2
UNCLIPPED_GRADIENT, PARAM_BEFORE, CHANGE = 3, 4, 5
NUM_SQUARES = 6
"""What is measured of a piece: its gradient, its parameters, and the direction of the step; and when the step is
watched, its gradient before clipping, its parameters before the step, and their change."""


@final
class Norms:
    """Norms are formed from the sums of squares of all pieces, which all workers see; running means count as zero.

    squares: (pieces, NUM_SQUARES) float64, shared.
    """

    def __init__(self, pieces: Sequence[Piece], squares: Array) -> None:
        self._squares = squares
        params = [piece.param for piece in pieces]
        self._firsts = [i for i, param in enumerate(params) if i == 0 or param != params[i - 1]]

    def measure(self, what: int, chunk: Chunk, x: Array) -> None:
        """Measure x, the elements of a chunk."""
        for number, elements in chunk.parts:
            kernels.measure(x[elements], self._squares[number, what : what + 1])

    def measure_change(self, chunk: Chunk, generation: int) -> None:
        """Measure a trained chunk behind the step from `generation` to the other one."""
        if chunk.is_trained:
            old, new = chunk.generations[generation][0], chunk.generations[1 - generation][0]
            for number, elements in chunk.parts:
                squares = kernels.squares_of_change(old[elements], new[elements])
                self._squares[number, PARAM_BEFORE : CHANGE + 1] = squares

    def measure_step(self, chunk: Chunk, generation: int, gradient: PartialSums) -> None:
        """Do as `measure_change`, and measure the gradient that led to it."""
        if chunk.is_trained:
            rows, first, carries, stack = gradient
            old, new = chunk.generations[generation][0], chunk.generations[1 - generation][0]
            for number, part in chunk.parts:
                squares = kernels.squares_of_step(rows, first + part.start, carries, stack, old[part], new[part])
                self._squares[number, UNCLIPPED_GRADIENT : CHANGE + 1] = squares

    def whole(self, what: int) -> float:
        """Return the norm of the whole vector.  All pieces must have been measured, and all workers met."""
        return sqrt(np.add.reduce(self._squares[:, what]))

    def of_params(self, what: int | slice) -> Array:
        """Return the norm of each parameter, by its number; no piece may hold elements of two."""
        return np.sqrt(np.add.reduceat(self._squares[:, what], self._firsts))

    def of_watched_step(self) -> Array:
        """Return what a watched step measured of each parameter, when all workers have met behind it: (3, params).

        The norms of its gradient before clipping, of itself before the step, and of its change; 0 for running means.
        """
        return self.of_params(slice(UNCLIPPED_GRADIENT, CHANGE + 1)).T

"""From gradients to the next generation: what a worker does to its chunks once a batch has passed through the model.

In one pass where it can be: sum and update together. Whatever must be known of the whole gradient first (its norm,
that of each weight, its sum over several batches) takes the longer way: sum, measure, meet, update. What is measured
is measured piece by piece of the flat vector, in float64, and every worker adds those numbers in the order of the
pieces; so the bits do not depend on who measured what.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import final

import numpy as np

from dist_relu.comm.barrier import Barrier
from dist_relu.core.arrays import Array, aligned_empty
from dist_relu.core.checks import check_fields, check_int, check_positive, check_share, optional
from dist_relu.core.guards import unchecked
from dist_relu.kernels import norms as kernels
from dist_relu.kernels.ordered_sum import BLOCK, add_ordered_sum, ordered_sum, running_mean
from dist_relu.nn import Sequential
from dist_relu.nn.passes import Layout
from dist_relu.optim import ElementwiseOptimizer, LayerwiseOptimizer, Optimizer
from dist_relu.partition import PartialSums
from dist_relu.reduction.chunks import Chunk, Piece, cut

_GRADIENT, _PARAM, _DIRECTION = 0, 1, 2
_GRADIENT_AS_IT_WAS, _PARAM_BEFORE, _CHANGE = 3, 4, 5
NUM_SQUARES = 6
"""Sums of squares that are measured of a piece: of its gradient, its parameters, and the direction of the step; and
when the step is watched, of its gradient before clipping, its parameters before the step, and their change."""


@dataclass(frozen=True)
class StepOptions:
    """What may happen in a step beside the optimiser's rule; see `Coordinator.fit`."""

    clip_norm: float | None = None
    clip_value: float | None = None
    ema_decay: float | None = None
    accumulate: int = 1

    def __post_init__(self) -> None:
        limit = optional(check_positive)
        check_fields(self, "", clip_norm=limit, clip_value=limit, ema_decay=optional(check_share), accumulate=check_int)

    @property
    def need_whole_gradient(self) -> bool:
        """Whether chunks can't be updated before all of them are summed."""
        return self.clip_norm is not None or self.clip_value is not None or self.accumulate > 1

    @property
    def num_averages(self) -> int:
        """How many vectors (P,) lie behind the optimiser's states."""
        return int(self.ema_decay is not None)


class Update(ABC):
    """The second half of a step, for one worker's chunks."""

    @abstractmethod
    def gather(self, shard_bounds: Sequence[tuple[int, int]]) -> None:
        """Take in the gradient of a batch, which lies complete in slots and arena; once or several times a step.

        Before another batch may overwrite it, all workers must have gathered.  shard_bounds: the rows of the batch
        in each shard.
        """

    @abstractmethod
    def step(self, hyper: Array, generation: int) -> None:
        """Go from `generation` to the other one with what was gathered.  May be collective."""


def update_of(
    optimizer: Optimizer,
    options: StepOptions,
    chunks: Sequence[Chunk],
    pieces: Sequence[Piece],
    squares: Array,
    barrier: Barrier,
    *,
    is_watched: bool = False,
) -> Update:
    """The shortest way to do what is asked for.  squares: (pieces, NUM_SQUARES) float64, shared.

    is_watched: leaves what `WatchedNorms` reads, with the same bits otherwise.
    """
    measures = _Squares(pieces, squares)
    if isinstance(optimizer, ElementwiseOptimizer) and not options.need_whole_gradient:
        return _FusedUpdate(chunks, optimizer, options.ema_decay, measures if is_watched else None)
    gradient = _SummedGradient(chunks, options, measures, barrier, is_watched=is_watched)
    update: Update
    if isinstance(optimizer, ElementwiseOptimizer):
        update = _SummedUpdate(chunks, optimizer, options.ema_decay, gradient)
    else:
        assert isinstance(optimizer, LayerwiseOptimizer)
        update = _LayerwiseUpdate(chunks, optimizer, options.ema_decay, gradient, measures, barrier)
    return _WatchedUpdate(update, chunks, measures) if is_watched else update


def cut_for(
    optimizer: Optimizer, options: StepOptions, model: Sequential, layout: Layout, *, is_watched: bool = False
) -> list[Piece]:
    """The pieces that an update works on.  is_watched: whether updates of some steps are.

    Where the bits depend on what is measured of the pieces, they are the same, watched or not.
    """
    measures = isinstance(optimizer, LayerwiseOptimizer) or options.clip_norm is not None
    return cut(model, layout, by_param=measures or is_watched)


@final
class WatchedNorms:
    """Reads what updates measured in a watched step.  squares: (pieces, NUM_SQUARES) float64, shared."""

    def __init__(self, pieces: Sequence[Piece], squares: Array) -> None:
        self._squares = _Squares(pieces, squares)

    def read(self) -> Array:
        """Of each parameter, when all workers have met behind the step: (3, params).

        The norms of its gradient before clipping, of itself before the step, and of its change; 0 for running means.
        """
        return self._squares.norms(slice(_GRADIENT_AS_IT_WAS, _CHANGE + 1)).T


@final
class _FusedUpdate(Update):
    """Sum and update each chunk in one pass.  squares: where to measure it, while it is in the cache."""

    def __init__(
        self,
        chunks: Sequence[Chunk],
        optimizer: ElementwiseOptimizer,
        ema_decay: float | None,
        squares: _Squares | None,
    ) -> None:
        self._chunks = chunks
        self._update = unchecked(optimizer.update)
        self._ema_decay = ema_decay
        self._squares = squares
        self._shard_bounds: Sequence[tuple[int, int]] = []

    def gather(self, shard_bounds: Sequence[tuple[int, int]]) -> None:
        self._shard_bounds = shard_bounds

    def step(self, hyper: Array, generation: int) -> None:
        for chunk in self._chunks:
            gradient = chunk.source.partial_sums(self._shard_bounds)
            _update_elements(chunk, gradient, self._update, hyper, generation)
            _average(chunk, self._ema_decay, generation)
            if self._squares:
                self._squares.measure_step(chunk, generation, gradient)


@final
class _SummedUpdate(Update):
    """Sum all chunks, then update all chunks."""

    def __init__(
        self,
        chunks: Sequence[Chunk],
        optimizer: ElementwiseOptimizer,
        ema_decay: float | None,
        gradient: _SummedGradient,
    ) -> None:
        self._chunks = chunks
        self._update = unchecked(optimizer.update)
        self._ema_decay = ema_decay
        self._gradient = gradient
        self._sums = [_as_partial_sums(total) for total in gradient.totals]

    def gather(self, shard_bounds: Sequence[tuple[int, int]]) -> None:
        self._gradient.gather(shard_bounds)

    def step(self, hyper: Array, generation: int) -> None:
        self._gradient.finish()
        for chunk, sums in zip(self._chunks, self._sums, strict=True):
            _update_elements(chunk, sums, self._update, hyper, generation)
            _average(chunk, self._ema_decay, generation)


@final
class _LayerwiseUpdate(Update):
    """Sum all chunks, find the direction of each, meet, and go as far as the norms of whole parameters say."""

    def __init__(
        self,
        chunks: Sequence[Chunk],
        optimizer: LayerwiseOptimizer,
        ema_decay: float | None,
        gradient: _SummedGradient,
        squares: _Squares,
        barrier: Barrier,
    ) -> None:
        self._chunks = chunks
        self._direct, self._take = unchecked(optimizer.direct), unchecked(optimizer.take)
        self._ema_decay = ema_decay
        self._gradient = gradient
        self._squares = squares
        self._barrier = barrier

    def gather(self, shard_bounds: Sequence[tuple[int, int]]) -> None:
        self._gradient.gather(shard_bounds)

    def step(self, hyper: Array, generation: int) -> None:
        self._gradient.finish()
        for chunk, total in zip(self._chunks, self._gradient.totals, strict=True):
            if chunk.is_trained:
                old, new = chunk.generations[generation], chunk.generations[1 - generation]
                self._direct(total, old, new, hyper, is_weight=chunk.is_weight)
                self._squares.measure(_PARAM, chunk, old[0])
                self._squares.measure(_DIRECTION, chunk, total)
        self._barrier.wait()
        param_norms, direction_norms = (self._squares.norms(what).tolist() for what in (_PARAM, _DIRECTION))
        for chunk, total in zip(self._chunks, self._gradient.totals, strict=True):
            old, new = chunk.generations[generation], chunk.generations[1 - generation]
            if chunk.is_trained:
                param_and_direction = param_norms[chunk.param_number], direction_norms[chunk.param_number]
                norms_of_weight = param_and_direction if chunk.is_weight else None
                self._take(total, old, new, hyper, norms_of_weight)
            else:
                _update_running_mean(chunk, _as_partial_sums(total), generation)
            _average(chunk, self._ema_decay, generation)


@final
class _WatchedUpdate(Update):
    """Another update, and by how much it changed the parameters."""

    def __init__(self, update: Update, chunks: Sequence[Chunk], squares: _Squares) -> None:
        self._update = update
        self._chunks = chunks
        self._squares = squares

    def gather(self, shard_bounds: Sequence[tuple[int, int]]) -> None:
        self._update.gather(shard_bounds)

    def step(self, hyper: Array, generation: int) -> None:
        self._update.step(hyper, generation)
        for chunk in self._chunks:
            self._squares.measure_change(chunk, generation)


@final
class _SummedGradient:
    """This worker's chunks of the gradient, summed over the shards and then over the batches of a step."""

    def __init__(
        self, chunks: Sequence[Chunk], options: StepOptions, squares: _Squares, barrier: Barrier, *, is_watched: bool
    ) -> None:
        self.totals = [aligned_empty((chunk.size,), chunk.dtype) for chunk in chunks]
        self._chunks = chunks
        self._trained = [(chunk, total) for chunk, total in zip(chunks, self.totals, strict=True) if chunk.is_trained]
        self._options = options
        self._squares = squares
        self._barrier = barrier
        self._is_watched = is_watched
        self._is_empty = True

    def gather(self, shard_bounds: Sequence[tuple[int, int]]) -> None:
        """Add the gradient of a batch."""
        take_in = ordered_sum if self._is_empty else add_ordered_sum
        for chunk, total in zip(self._chunks, self.totals, strict=True):
            take_in(*chunk.source.partial_sums(shard_bounds), total)
        self._is_empty = False

    def finish(self) -> None:
        """Clip what was gathered, by value and then by norm; the next batch starts from zero.  May be collective."""
        self._is_empty = True
        if self._is_watched:
            for chunk, total in self._trained:
                self._squares.measure(_GRADIENT_AS_IT_WAS, chunk, total)
        if self._options.clip_value is not None:
            for _, total in self._trained:
                kernels.clip(total, self._options.clip_value)
        if self._options.clip_norm is not None:
            for chunk, total in self._trained:
                self._squares.measure(_GRADIENT, chunk, total)
            self._barrier.wait()
            # The small number is PyTorch's. A norm that is no number makes the loss of the next step none.
            factor = self._options.clip_norm / (self._squares.norm(_GRADIENT) + 1e-6)
            if not factor >= 1:
                for _, total in self._trained:
                    kernels.scale(total, factor)


@final
class _Squares:
    """Sums of squares of the pieces of the flat vector, where all workers see them; running means count as zero."""

    def __init__(self, pieces: Sequence[Piece], squares: Array) -> None:
        self._squares = squares
        params = [piece.param for piece in pieces]
        self._firsts = [i for i, param in enumerate(params) if i == 0 or param != params[i - 1]]

    def measure(self, what: int, chunk: Chunk, x: Array) -> None:
        for number, elements in chunk.parts:
            self._squares[number, what] = kernels.sum_of_squares(x[elements])

    def measure_change(self, chunk: Chunk, generation: int) -> None:
        """Of a trained chunk, behind the step from `generation` to the other one."""
        if chunk.is_trained:
            old, new = chunk.generations[generation][0], chunk.generations[1 - generation][0]
            for number, elements in chunk.parts:
                squares = kernels.squares_of_change(old[elements], new[elements])
                self._squares[number, _PARAM_BEFORE : _CHANGE + 1] = squares

    def measure_step(self, chunk: Chunk, generation: int, gradient: PartialSums) -> None:
        """`measure_change`, and the gradient that led to it."""
        if chunk.is_trained:
            rows, first, carries, stack = gradient
            old, new = chunk.generations[generation][0], chunk.generations[1 - generation][0]
            for number, part in chunk.parts:
                squares = kernels.squares_of_step(rows, first + part.start, carries, stack, old[part], new[part])
                self._squares[number, _GRADIENT_AS_IT_WAS : _CHANGE + 1] = squares

    def norm(self, what: int) -> float:
        """Of the whole vector.  All pieces must have been measured, and all workers met."""
        return sqrt(np.add.reduce(self._squares[:, what]))

    def norms(self, what: int | slice) -> Array:
        """Of each parameter, by its number; no piece may hold elements of two."""
        return np.sqrt(np.add.reduceat(self._squares[:, what], self._firsts))


def _as_partial_sums(total: Array) -> PartialSums:
    """A gradient of which nothing is left to sum."""
    return PartialSums(total.reshape(1, -1), 0, np.zeros(1, np.int64), aligned_empty((1, BLOCK), total.dtype))


def _update_elements(
    chunk: Chunk, gradient: PartialSums, update: Callable[..., None], hyper: Array, generation: int
) -> None:
    if chunk.is_trained:
        update(gradient, chunk.generations[generation], chunk.generations[1 - generation], hyper)
    else:
        _update_running_mean(chunk, gradient, generation)


def _update_running_mean(chunk: Chunk, value: PartialSums, generation: int) -> None:
    assert chunk.param.momentum is not None
    old, new = chunk.generations[generation], chunk.generations[1 - generation]
    running_mean(*value, old[0], new[0], chunk.param.momentum)


def _average(chunk: Chunk, decay: float | None, generation: int) -> None:
    """The average of the parameters, which lies behind all states; running means are averages already."""
    if decay is None:
        return
    old, new = chunk.generations[generation], chunk.generations[1 - generation]
    if chunk.is_trained:
        kernels.average(old[-1], new[0], new[-1], decay)
    else:
        new[-1][:] = new[0]

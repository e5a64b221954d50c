"""A worker takes its chunks from one generation to the next, once a batch has passed through the model.

It does so in one pass where that can be: sum and update together. Whatever must be known of the whole gradient first
(its norm, that of each weight, its sum over several batches), and whatever keeps it for the next step, takes the longer
way: sum, measure, meet, update.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from math import isfinite
from typing import NamedTuple, final

import numpy as np

from dist_relu.comm.barrier import Barrier
from dist_relu.compression.gradient import CompressedGradient
from dist_relu.core.arrays import Array, aligned_empty
from dist_relu.core.guards import is_ours, unchecked
from dist_relu.engine.norms import DIRECTION, GRADIENT, PARAM, UNCLIPPED_GRADIENT, Norms
from dist_relu.engine.plan import StepOptions, StepPlan
from dist_relu.kernels import norms as kernels
from dist_relu.kernels.copies import copy
from dist_relu.kernels.ordered_sum import BLOCK, add_ordered_sum, ordered_sum, running_mean
from dist_relu.kernels.tape import in_python
from dist_relu.optim import ElementwiseOptimizer, Groups, LayerwiseOptimizer, Optimizer
from dist_relu.partition import PartialSums
from dist_relu.reduction.chunks import Chunk
from dist_relu.reduction.sources import ShardBounds


@final
class Updater:
    """An updater does the second half of a step for a worker's chunks: for each batch `accumulate`, and then `step`."""

    def __init__(
        self,
        plan: StepPlan,
        chunks: Sequence[Chunk],
        norms: Norms,
        barrier: Barrier,
        groups: Sequence[int] = (),
        compressed: CompressedGradient | None = None,
    ) -> None:
        """chunks: with sources that are complete when gradients are accumulated.  barrier: of the workers of a node.

        groups: of each parameter, see `group_numbers`; chunks of parameters that it does not tell of follow the rule.
        compressed: sums these chunks in place of their sources.
        """
        self._chunks = chunks
        rules = _rules_of(plan.optimizer, chunks, groups)
        self._update = _shortest_way(plan, chunks, rules, norms, barrier, compressed)

    def accumulate(self, shard_bounds: ShardBounds) -> None:
        """Take in the gradient of a batch, which lies complete in slots and arena; once or several times a step.

        Before another batch may overwrite it, all workers must have done so.  shard_bounds: the rows of the batch in
        each shard.
        """
        self._update.accumulate(shard_bounds)

    def step(self, hyper: Array, generation: int, *, is_watched: bool = False) -> None:
        """Go from `generation` to the other one with what was accumulated.  May be collective.

        hyper: what `Optimizer.hyper` says of this step, in the parameters' dtype.  is_watched: leaves what
        `Norms.of_watched_step` reads, with the same bits otherwise.
        """
        self._update.step(hyper, generation, is_watched=is_watched)

    def skip(self, generation: int) -> None:
        """Go from `generation` to the other one as it is, and drop what was accumulated."""
        self._update.drop()
        for chunk in self._chunks:
            for old, new in zip(chunk.generations[generation], chunk.generations[1 - generation], strict=True):
                new[:] = old

    def is_finite(self, generation: int) -> bool:
        """Tell whether all numbers of a generation are finite, as far as they are this worker's."""
        return all(_is_finite(vector) for chunk in self._chunks for vector in chunk.generations[generation])


class _Update(ABC):
    """This is a way to do what an updater does."""

    @abstractmethod
    def accumulate(self, shard_bounds: ShardBounds) -> None:
        """See `Updater.accumulate`."""

    @abstractmethod
    def step(self, hyper: Array, generation: int, *, is_watched: bool) -> None:
        """See `Updater.step`."""

    @abstractmethod
    def drop(self) -> None:
        """Forget what was accumulated."""


class _Rule(NamedTuple):
    """What a chunk follows, and which of the numbers of a step are for it."""

    optimizer: Optimizer
    hyper: slice


def _rules_of(optimizer: Optimizer, chunks: Sequence[Chunk], groups: Sequence[int]) -> list[_Rule]:
    """Find the rule of each chunk; all have the same where there are no groups."""
    if not isinstance(optimizer, Groups):
        return [_Rule(optimizer, slice(None))] * len(chunks)
    rules = [_Rule(*rule) for rule in zip(optimizer.rules(), optimizer.parts(), strict=True)]
    return [rules[groups[chunk.param_number]] if groups else rules[-1] for chunk in chunks]


def _shortest_way(
    plan: StepPlan,
    chunks: Sequence[Chunk],
    rules: Sequence[_Rule],
    norms: Norms,
    barrier: Barrier,
    compressed: CompressedGradient | None,
) -> _Update:
    """Choose the shortest way to do what is asked for."""
    options = plan.options
    optimizer = plan.optimizer.rule if isinstance(plan.optimizer, Groups) else plan.optimizer
    if isinstance(optimizer, ElementwiseOptimizer) and not options.need_whole_gradient:
        return _FusedUpdate(chunks, rules, options.ema_decay, norms)
    gradient = _SummedGradient(chunks, options, norms, barrier, compressed)
    if isinstance(optimizer, ElementwiseOptimizer):
        return _SummedUpdate(chunks, rules, options.ema_decay, gradient, norms)
    return _LayerwiseUpdate(chunks, rules, options.ema_decay, gradient, norms, barrier)


@final
class _FusedUpdate(_Update):
    """This way sums and updates each chunk in one pass, and measures it while it is in the cache."""

    def __init__(self, chunks: Sequence[Chunk], rules: Sequence[_Rule], ema_decay: float | None, norms: Norms) -> None:
        self._chunks = chunks
        self._updates = list(map(_recordable, rules))
        self._ema_decay = ema_decay
        self._norms = norms
        self._shard_bounds: ShardBounds = ()

    def accumulate(self, shard_bounds: ShardBounds) -> None:
        self._shard_bounds = shard_bounds

    def step(self, hyper: Array, generation: int, *, is_watched: bool) -> None:
        for chunk, update in zip(self._chunks, self._updates, strict=True):
            gradient = chunk.source.partial_sums(self._shard_bounds)
            _update_elements(chunk, gradient, update, hyper, generation)
            _average(chunk, self._ema_decay, generation)
            if is_watched:
                self._norms.measure_step(chunk, generation, gradient)

    def drop(self) -> None:
        pass  # it lies in slots and arena only


@final
class _SummedUpdate(_Update):
    """This way sums all chunks, then updates all chunks."""

    def __init__(
        self,
        chunks: Sequence[Chunk],
        rules: Sequence[_Rule],
        ema_decay: float | None,
        gradient: _SummedGradient,
        norms: Norms,
    ) -> None:
        self._chunks = chunks
        self._updates = list(map(_recordable, rules))
        self._ema_decay = ema_decay
        self._gradient = gradient
        self._norms = norms
        self._sums = [_as_partial_sums(total) for total in gradient.totals]

    def accumulate(self, shard_bounds: ShardBounds) -> None:
        self._gradient.accumulate(shard_bounds)

    def step(self, hyper: Array, generation: int, *, is_watched: bool) -> None:
        self._gradient.finish(generation, is_watched=is_watched)
        for chunk, sums, update in zip(self._chunks, self._sums, self._updates, strict=True):
            _update_elements(chunk, sums, update, hyper, generation)
            _average(chunk, self._ema_decay, generation)
            if is_watched:
                self._norms.measure_change(chunk, generation)

    def drop(self) -> None:
        self._gradient.drop()


@final
class _LayerwiseUpdate(_Update):
    """This way sums all chunks, finds the direction of each, and goes as far as the norms of whole parameters say."""

    def __init__(
        self,
        chunks: Sequence[Chunk],
        rules: Sequence[_Rule],
        ema_decay: float | None,
        gradient: _SummedGradient,
        norms: Norms,
        barrier: Barrier,
    ) -> None:
        self._chunks = chunks
        self._rules = [_direct_and_take(rule) for rule in rules]
        self._ema_decay = ema_decay
        self._gradient = gradient
        self._norms = norms
        self._barrier = barrier

    def accumulate(self, shard_bounds: ShardBounds) -> None:
        self._gradient.accumulate(shard_bounds)

    def step(self, hyper: Array, generation: int, *, is_watched: bool) -> None:
        self._gradient.finish(generation, is_watched=is_watched)
        in_python(partial(self._take, hyper, generation, is_watched=is_watched))

    def _take(self, hyper: Array, generation: int, *, is_watched: bool) -> None:
        """Find directions and go; collective."""
        for chunk, total, (direct, _, part) in zip(self._chunks, self._gradient.totals, self._rules, strict=True):
            if chunk.is_trained:
                old, new = chunk.generations[generation], chunk.generations[1 - generation]
                direct(total, old, new, hyper[part], is_weight=chunk.is_weight)
                self._norms.measure(PARAM, chunk, old[0])
                self._norms.measure(DIRECTION, chunk, total)
        self._barrier.wait()
        param_norms, direction_norms = (self._norms.of_params(what).tolist() for what in (PARAM, DIRECTION))
        for chunk, total, (_, take, part) in zip(self._chunks, self._gradient.totals, self._rules, strict=True):
            old, new = chunk.generations[generation], chunk.generations[1 - generation]
            if chunk.is_trained:
                param_and_direction = param_norms[chunk.param_number], direction_norms[chunk.param_number]
                norms_of_weight = param_and_direction if chunk.is_weight else None
                take(total, old, new, hyper[part], norms_of_weight)
            else:
                _update_running_mean(chunk, _as_partial_sums(total), generation)
            _average(chunk, self._ema_decay, generation)
            if is_watched:
                self._norms.measure_change(chunk, generation)

    def drop(self) -> None:
        self._gradient.drop()


@final
class _SummedGradient:
    """This worker's chunks of the gradient are summed here, over the shards and then over the batches of a step."""

    def __init__(
        self,
        chunks: Sequence[Chunk],
        options: StepOptions,
        norms: Norms,
        barrier: Barrier,
        compressed: CompressedGradient | None,
    ) -> None:
        self.totals = [aligned_empty((chunk.size,), chunk.dtype) for chunk in chunks]
        self._chunks = chunks
        self._trained = [(chunk, total) for chunk, total in zip(chunks, self.totals, strict=True) if chunk.is_trained]
        self._options = options
        self._norms = norms
        self._barrier = barrier
        self._compressed = compressed
        self._is_empty = True
        self._factor = np.ones(1)

    def accumulate(self, shard_bounds: ShardBounds) -> None:
        """Add the gradient of a batch."""
        is_first, self._is_empty = self._is_empty, False
        if self._compressed:
            self._compressed.accumulate(shard_bounds, is_first=is_first)
            return
        take_in = ordered_sum if is_first else add_ordered_sum
        for chunk, total in zip(self._chunks, self.totals, strict=True):
            take_in(*chunk.source.partial_sums(shard_bounds), total)

    def drop(self) -> None:
        """Start from zero."""
        self._is_empty = True

    def finish(self, generation: int, *, is_watched: bool) -> None:
        """Compress what was accumulated, clip it by value and then by norm; the next batch starts from zero.

        generation: that the step reads. Where gradients are stale, the totals become what the step before has left
        there, and this step's lie in the other one.  May be collective.
        """
        self._is_empty = True
        if self._compressed:
            self._compressed.finish(generation, self.totals)
        if is_watched:
            for chunk, total in self._trained:
                self._norms.measure(UNCLIPPED_GRADIENT, chunk, total)
        if self._options.clip_value is not None:
            for _, total in self._trained:
                kernels.clip(total, self._options.clip_value)
        if self._options.clip_norm is not None:
            for chunk, total in self._trained:
                self._norms.measure(GRADIENT, chunk, total)
            self._barrier.wait()
            in_python(partial(self._find_factor, self._options.clip_norm))
            for _, total in self._trained:
                kernels.shrink(total, self._factor)
        if self._options.stale_gradients:
            place = -1 - self._options.num_averages
            for chunk, total in self._trained:
                copy(total, chunk.generations[1 - generation][place])
                copy(chunk.generations[generation][place], total)

    def _find_factor(self, limit: float) -> None:
        """Find by how much to shrink the gradient, so that its norm keeps to the limit, when all have measured it."""
        # The small number is PyTorch's. A norm that is no number makes the loss of the next step none.
        self._factor[0] = limit / (self._norms.whole(GRADIENT) + 1e-6)


def _is_finite(x: Array) -> bool:
    """Tell whether all elements are finite; squares of float64 may be infinite though they are."""
    return isfinite(kernels.sum_of_squares(x)) or bool(np.isfinite(x).all())


def _as_partial_sums(total: Array) -> PartialSums:
    """Return a gradient of which nothing is left to sum."""
    return PartialSums(total.reshape(1, -1), 0, np.zeros(1, np.int64), aligned_empty((1, BLOCK), total.dtype))


def _recordable(rule: _Rule) -> Callable[..., None]:
    """Return the update of a rule; that of one of the user's own is done in Python, whatever it does there."""
    optimizer, part = rule
    assert isinstance(optimizer, ElementwiseOptimizer)
    of_all = unchecked(optimizer.update)

    def of_group(gradient: PartialSums, old: Sequence[Array], new: Sequence[Array], hyper: Array) -> None:
        of_all(gradient, old, new, hyper[part])

    update = of_all if part == slice(None) else of_group
    return update if is_ours(type(optimizer)) else lambda *arguments: in_python(partial(update, *arguments))


def _direct_and_take(rule: _Rule) -> tuple[Callable[..., None], Callable[..., None], slice]:
    """Return both halves of a rule, and which numbers of a step are for it."""
    optimizer, part = rule
    assert isinstance(optimizer, LayerwiseOptimizer)
    return unchecked(optimizer.direct), unchecked(optimizer.take), part


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
    """Update the average of the parameters, which lies behind all states; running means are averages already."""
    if decay is None:
        return
    old, new = chunk.generations[generation], chunk.generations[1 - generation]
    if chunk.is_trained:
        kernels.average(old[-1], new[0], new[-1], decay)
    else:
        copy(new[0], new[-1])

"""The gradient of a step by way of a compression: summed in groups, compressed, and added along the summation tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from dist_relu.compression.feedback import ErrorFeedback, Part
from dist_relu.core.arrays import Array, aligned_empty
from dist_relu.kernels.ordered_sum import BLOCK, add_ordered_sum, ordered_sum
from dist_relu.partition import PartialSums, SummationTree, TreeNode, stack_depth
from dist_relu.reduction.plan import ReductionPlan
from dist_relu.reduction.sources import ShardBounds, Source


@final
class CompressedGradient:
    """This worker's chunks of a gradient are summed in groups here, and become the total of what comes of them."""

    def __init__(
        self, compression: ErrorFeedback, plan: ReductionPlan, part: Part, sources: Sequence[Sequence[Source]]
    ) -> None:
        """sources: of each chunk, for each group, see `Reducer.group_sources`."""
        groups = plan.groups
        rows = part.sums[: len(groups)]
        self._terms = [
            (source, slice(shards.start, shards.stop), row[place])
            for (place, _), of_chunk in zip(part.chunks, sources, strict=True)
            for source, shards, row in zip(of_chunk, groups, rows, strict=True)
        ]
        carries = [0]
        if plan.group_level is not None:
            nodes = [TreeNode(plan.group_level, number) for number in range(len(groups))]
            carries, _ = SummationTree(plan.shards).fold(nodes)
        stack = aligned_empty((stack_depth(carries), BLOCK), rows.dtype)
        self._sums = [PartialSums(rows, place.start, np.array(carries, np.int64), stack) for place, _ in part.chunks]
        self._is_trained = [is_trained for _, is_trained in part.chunks]
        self._compressor = compression.compressor(part)

    def accumulate(self, shard_bounds: ShardBounds, *, is_first: bool) -> None:
        """Add the gradient of a batch, the first of a step or another; see `Updater.accumulate`."""
        take_in = ordered_sum if is_first else add_ordered_sum
        for source, part, target in self._terms:
            take_in(*source.partial_sums(shard_bounds[part]), target)

    def finish(self, generation: int, totals: Sequence[Array]) -> None:
        """Compress, and leave what comes of this worker's chunks in `totals`; collective."""
        self._compressor.compress(generation)
        for sums, total, is_trained in zip(self._sums, totals, self._is_trained, strict=True):
            ordered_sum(*sums, total)
            if is_trained:
                self._compressor.receive(total)

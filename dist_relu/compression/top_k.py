"""Gradients are sent as their largest elements alone; what was left out is added to the next one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil, prod
from typing import NamedTuple, final

import numpy as np

from dist_relu.compression.compression import check_groups, is_trained, total_size
from dist_relu.compression.feedback import Compressor, ErrorFeedback, Part, places_of
from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_fields, check_float
from dist_relu.kernels.compression import DIGIT_BITS, keep_largest
from dist_relu.kernels.ordered_sum import add
from dist_relu.nn import Sequential
from dist_relu.partition import balance

_INDEX_BYTES = 4


@final
@dataclass(frozen=True)
class TopK(ErrorFeedback):
    """Each group sends, of every parameter, the share of elements that is largest in magnitude, at least one.

    Of equal ones the first are sent. What a group does not send it remembers, and adds to its next sum: error feedback.
    Stich et al. (2018), "Sparsified SGD with memory", algorithm 1; Lin et al. (2018), "Deep gradient compression", for
    every parameter by itself. Learning rates are within what is remembered in the former, and not here.
    groups: how many there are, by default as many as shards; each takes a vector of the run's state.
    """

    share: float = 0.01
    groups: int | None = None

    def __post_init__(self) -> None:
        check_fields(self, share=partial(check_float, above=0, most=1), groups=check_groups)

    def num_groups(self, shards: int) -> int | None:
        return self.groups or shards

    def bytes_sent(self, model: Sequential) -> int:
        trained = [param for param in model.params if is_trained(param)]
        num_sent, rest = sum(self.count(prod(param.shape)) for param in trained), model.num_params - total_size(trained)
        return _INDEX_BYTES * num_sent + model.dtype.itemsize * (num_sent + rest)

    def num_rows(self, shards: int) -> int:
        return self.groups or shards

    def state_names(self, shards: int) -> Sequence[str]:
        return [f"error of group {number}" for number in range(self.groups or shards)]

    def count(self, size: int) -> int:
        """Tell how many of so many elements are sent."""
        return ceil(round(self.share * size, 6))  # 0.07 * 100 is a little more than 7

    def compressor(self, part: Part) -> Compressor:
        return _TopK(part, self)


class _Item(NamedTuple):
    """A parameter of a group as it is summed, its errors (2, n) of both generations, and how much of it is left."""

    x: Array
    errors: Array
    num_left: int


@final
class _TopK(Compressor):
    """A worker thins out whole parameters of some groups, whoever has summed them."""

    def __init__(self, part: Part, compression: TopK) -> None:
        places = [place for place, param in zip(places_of(part.params), part.params, strict=True) if is_trained(param)]
        num_groups = part.states.shape[1]
        items = [(group, place) for group in range(num_groups) for place in places]
        mine = balance([place.stop - place.start for _, place in items], part.workers)[part.rank]
        self._items = [
            _Item(part.sums[group, place], part.states[:, group, place], compression.count(place.stop - place.start))
            for group, place in items[mine.start : mine.stop]
        ]
        self._barrier = part.barrier
        self._num_bits = 8 * part.sums.itemsize - 1
        self._counts = np.empty(1 << DIGIT_BITS, np.int64)

    def compress(self, generation: int) -> None:
        self._barrier.wait()
        for x, errors, num_left in self._items:
            add(x, errors[generation])
            bits, rest = x.view(f"u{x.itemsize}"), errors[1 - generation].view(f"u{x.itemsize}")
            keep_largest(bits, rest, num_left, self._num_bits, self._counts)
        self._barrier.wait()

    def receive(self, total: Array) -> None:
        pass  # all groups' elements come to everybody

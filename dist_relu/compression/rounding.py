"""Gradients are sent with 16 bits for each number, and so are their totals, as with PyTorch's hooks of that kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, final

import numpy as np

from dist_relu.compression.compression import Compression, Compressor, Part, bytes_as_they_are, check_groups
from dist_relu.core.arrays import Array, aligned_empty
from dist_relu.core.checks import check_fields, one_of
from dist_relu.kernels.compression import round_to_bfloat16, round_to_float16
from dist_relu.kernels.copies import copy
from dist_relu.nn import Param

_ROUND = {"bfloat16": round_to_bfloat16, "float16": round_to_float16}
_BYTES = 2


@final
@dataclass(frozen=True)
class Rounded(Compression):
    """Sums of groups are rounded to 16 bits, and so is their total.

    to: "bfloat16", with 8 bits of mantissa and the range of float32, or "float16", with 11 bits, from 6e-8 to 65504:
    what is larger becomes infinite, and ends the run or is skipped, as `on_nan` says.
    groups: how many there are, by default as many as shards.
    """

    to: Literal["bfloat16", "float16"] = "bfloat16"
    groups: int | None = None

    def __post_init__(self) -> None:
        check_fields(self, to=one_of(*_ROUND), groups=check_groups)

    def num_groups(self, shards: int) -> int | None:
        return self.groups or shards

    def num_rows(self, shards: int) -> int:
        return self.groups or shards

    def state_names(self, shards: int) -> Sequence[str]:
        return ()

    def bytes_sent(self, params: Sequence[Param]) -> int:
        rounded = sum(prod(param.shape) for param in params if param.momentum is None)
        return _BYTES * rounded + bytes_as_they_are([param for param in params if param.momentum is not None])

    def compressor(self, part: Part) -> Compressor:
        return _Rounding(part, self.to)


@final
class _Rounding(Compressor):
    """A worker rounds its own chunks, and need not know of the others.  Numbers of float64 become float32 first."""

    def __init__(self, part: Part, to: str) -> None:
        self._round = _ROUND[to]
        self._sums = [row[place] for place, is_trained in part.chunks if is_trained for row in part.sums]
        self._single = aligned_empty((max(map(len, self._sums), default=0),), np.float32)

    def compress(self, generation: int) -> None:
        for x in self._sums:
            self._round_in_place(x)

    def receive(self, total: Array) -> None:
        self._round_in_place(total)

    def _round_in_place(self, x: Array) -> None:
        if x.dtype == np.float32:
            self._round(x.view(np.uint32))
            return
        single = self._single[: len(x)]
        copy(x, single)
        self._round(single.view(np.uint32))
        copy(single, x)

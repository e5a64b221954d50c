"""Gradients are sent with 16 bits for each number, and so are their sums, as with PyTorch's hooks of that kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final, get_args

from dist_relu.comm.halves import HALF_BYTES, Rounding
from dist_relu.compression.compression import Compression, check_groups, is_trained, total_size
from dist_relu.core.checks import check_fields, one_of
from dist_relu.nn import Sequential


@final
@dataclass(frozen=True)
class Rounded(Compression):
    """Sums of groups are rounded to 16 bits, and so is every sum of these along the summation tree.

    Over several nodes gradients and their totals travel with 16 bits for each number, while backward still runs; if a
    group is spread over nodes, as they are and after it.

    to: "bfloat16", with 8 bits of mantissa and the range of float32, or "float16", with 11 bits, from 6e-8 to 65504:
    what is larger becomes infinite, and ends the run or is skipped, as `on_nan` says.
    groups: how many there are, by default as many as shards. With fewer, fewer sums are rounded; a multiple of the
    nodes, all with as many workers, keeps whole groups on each.
    """

    to: Rounding = "bfloat16"
    groups: int | None = None

    def __post_init__(self) -> None:
        check_fields(self, to=one_of(*get_args(Rounding)), groups=check_groups)

    def num_groups(self, shards: int) -> int | None:
        return self.groups or shards

    def bytes_sent(self, model: Sequential) -> int:
        rounded = total_size([param for param in model.params if is_trained(param)])
        return HALF_BYTES * rounded + model.dtype.itemsize * (model.num_params - rounded)

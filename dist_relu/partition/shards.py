"""Who computes what: ranges of shards, workers and rows.

Both stay contiguous: worker 0 has the first shards, and shard 0 the first rows of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np

from dist_relu.errors import PartitionError


@lru_cache(maxsize=4096)
def bounds(total: int, parts: int) -> Sequence[tuple[int, int]]:
    """Cut range(total) into contiguous parts whose lengths differ by one at most, the longer ones first."""
    short, longer = divmod(total, parts)
    starts = [i * short + min(i, longer) for i in range(parts + 1)]
    return tuple(pairwise(starts))


def check_fit(num_samples: int, batch_size: int, shards: int, workers: int) -> None:
    """Raise `PartitionError` unless every worker gets a shard and every shard of a batch a sample."""
    if workers > shards:
        leaving = "1 shard leaves" if shards == 1 else f"{shards} shards leave"
        raise PartitionError(
            f"{leaving} {workers - shards} of {workers} workers without work. "
            f"Pass workers <= {shards} or shards >= {workers}."
        )
    if batch_size < shards:
        raise PartitionError(
            f"A batch of {batch_size} can't be cut into {shards} shards. "
            f"Pass batch_size >= {shards} or shards <= {batch_size}."
        )
    if num_samples < shards:
        raise PartitionError(f"{num_samples} samples can't be cut into {shards} shards. Pass shards <= {num_samples}.")


def balance(costs: Sequence[float], workers: int) -> list[range]:
    """Give each of W workers a contiguous range of items, of about the same cost."""
    middles = np.cumsum(costs) - np.asarray(costs) / 2
    owners = np.minimum(middles * workers / max(sum(costs), 1e-300), workers - 1).astype(int)
    starts = np.searchsorted(owners, np.arange(workers + 1))
    return [range(int(a), int(b)) for a, b in pairwise(starts)]

"""How gradients are added over nodes: all send their partial sums to an owner, who adds them and sends the sum back.

Each bucket, a contiguous part of the gradient, has an owner, and on every node a worker that looks after it. So
2·(nodes - 1)/nodes of the gradient leave each node and as much arrives, which is the least that there is; and since
the owner has all partial sums side by side, it adds them in the order of the summation tree, whoever was first.

R rows of partial sums over all nodes, R_n those of node n, one for each subtree of the summation tree that the node has
summed alone; normally it is one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from typing import final

import numpy as np
import numpy.typing as npt

from dist_relu.comm.channel import MAX_TAG, ProgressEngine
from dist_relu.core.arrays import Array, aligned_empty
from dist_relu.kernels.ordered_sum import BLOCK, ordered_sum
from dist_relu.partition import stack_depth


@dataclass(frozen=True)
class Bucket:
    """A bucket has the elements from `start` to `stop` of the sums.

    owner: the node that adds them.  ranks: the worker who looks after the bucket, on each node.
    """

    number: int
    start: int
    stop: int
    owner: int
    ranks: Sequence[int]


BUCKET_BYTES = 256 * 1024
"""Large enough for a link's full speed, small enough that it is soon on its way."""

LEAST_BUCKET_BYTES = 64 * 1024
"""What is summed at a time is about as large, and goes with one bucket."""

MAX_BUCKETS = MAX_TAG // 4
"""Each has two tags; as many are left for others."""


def num_buckets(size_bytes: int, num_nodes: int, bucket_bytes: int = BUCKET_BYTES) -> int:
    """Tell into how many buckets of about `bucket_bytes` to cut sums of so many bytes: as many for each node to own."""
    of_each = max(round(size_bytes / (bucket_bytes * num_nodes)), 1)
    return num_nodes * min(of_each, max(MAX_BUCKETS // num_nodes, 1))


def assign_buckets(cuts: Sequence[tuple[int, int]], costs: Sequence[float], nodes: Sequence[range]) -> Sequence[Bucket]:
    """Give every bucket to the node that owns the least so far, and on each node to the worker with the least to do.

    cuts: first element and end of each.  costs: of adding what lies on one node, in any unit; the owner's worker, who
    also adds what comes from the others, has about twice as much to do.  nodes: the ranks of each.
    """
    owned = [0] * len(nodes)
    busy = [[0.0] * len(ranks) for ranks in nodes]
    buckets = []
    for number, ((start, stop), cost) in enumerate(zip(cuts, costs, strict=True)):
        owner = owned.index(min(owned))
        owned[owner] += stop - start
        looks_after = []
        for node, ranks in enumerate(nodes):
            idlest = busy[node].index(min(busy[node]))
            busy[node][idlest] += cost * (2 if node == owner else 1)
            looks_after.append(ranks[idlest])
        buckets.append(Bucket(number, start, stop, owner, looks_after))
    return buckets


Add = Callable[[Array, Array], object]
"""(rows, total): total = all `rows` together, in an order that they alone decide."""


@final
class OrderedSum:
    """Adds rows along the summation tree.  carries: one number for each row."""

    def __init__(self, carries: Sequence[int], dtype: npt.DTypeLike) -> None:
        self._carries = np.array(carries, np.int64)
        self._stack = aligned_empty((stack_depth(carries), BLOCK), np.dtype(dtype))

    def __call__(self, rows: Array, total: Array) -> None:
        ordered_sum(rows, 0, self._carries, self._stack, total)


@final
class Exchange:
    """An exchange is one worker's part in adding over nodes, bucket by bucket.

    mine: the buckets that this worker looks after.  num_rows: R_n of each node.  add: for the (R, ...) rows of
    all nodes.  sums: the memory of this node where finished sums go.
    """

    def __init__(
        self,
        progress_engine: ProgressEngine,
        node: int,
        mine: Sequence[Bucket],
        num_rows: Sequence[int],
        add: Add,
        sums: Array,
    ) -> None:
        assert all(2 * bucket.number + 1 < MAX_TAG for bucket in mine)
        bounds = [0, *accumulate(num_rows)]
        rows_of = [slice(first, stop) for first, stop in pairwise(bounds)]
        self._states = {
            bucket.number: _State(
                bucket,
                aligned_empty(
                    (bounds[-1] if bucket.owner == node else num_rows[node], bucket.stop - bucket.start), sums.dtype
                ),
                sums[bucket.start : bucket.stop],
                len(num_rows),
            )
            for bucket in mine
        }
        self._progress_engine = progress_engine
        self._node = node
        self._rows_of = rows_of
        self._add_rows = add
        self._unfinished = 0

    def begin(self) -> None:
        """Begin a new sum: let what the other nodes send for it come in."""
        self._unfinished = len(self._states)
        for state in self._states.values():
            bucket = state.bucket
            if bucket.owner == self._node:
                for node, rank in enumerate(bucket.ranks):
                    if node != self._node:
                        rows = state.rows[self._rows_of[node]]
                        self._progress_engine.receive(rows, rank, 2 * bucket.number, partial(self._arrived, state))
            else:
                rank = bucket.ranks[bucket.owner]
                self._progress_engine.receive(state.total, rank, 2 * bucket.number + 1, self._finished)

    def rows(self, bucket: Bucket) -> Array:
        """Return the array where this node's partial sums of a bucket are to be left, (R_n, elements of the bucket)."""
        state = self._states[bucket.number]
        if state.unsent:
            self._progress_engine.wait_until(lambda: not state.unsent)
        return state.rows[self._rows_of[self._node]] if bucket.owner == self._node else state.rows

    def leave(self, bucket: Bucket) -> None:
        """Send this node's partial sums of a bucket, which are complete, on their way."""
        state = self._states[bucket.number]
        with self._progress_engine.lock:
            if bucket.owner == self._node:
                self._arrived(state)
            else:
                self._send(state, state.rows, bucket.ranks[bucket.owner], 2 * bucket.number)

    def wait(self) -> None:
        """Wait until all buckets of this worker are summed.  Raises TaskAborted when the task was given up."""
        self._progress_engine.wait_until(lambda: not self._unfinished)

    def _arrived(self, state: _State) -> None:
        state.missing -= 1
        self._add(state)

    def _add(self, state: _State) -> None:
        """Add what the nodes have sent, when all have, and the sum before is on its way to everybody."""
        if state.missing or state.unsent:
            return
        self._add_rows(state.rows, state.total)
        state.missing = len(self._rows_of)
        for node, rank in enumerate(state.bucket.ranks):
            if node != self._node:
                self._send(state, state.total, rank, 2 * state.bucket.number + 1)
        self._finished()

    def _send(self, state: _State, array: Array, rank: int, tag: int) -> None:
        state.unsent += 1
        self._progress_engine.send(array, rank, tag, partial(self._sent, state))

    def _sent(self, state: _State) -> None:
        state.unsent -= 1
        self._add(state)

    def _finished(self) -> None:
        self._unfinished -= 1


@dataclass
class _State:
    """rows: of all nodes at the owner, otherwise of this one.  total: the finished sum.

    missing: the nodes whose rows the owner waits for.  unsent: messages from `rows` or `total` that are under way.
    """

    bucket: Bucket
    rows: Array
    total: Array
    missing: int
    unsent: int = 0

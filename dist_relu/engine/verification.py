"""Processors that compute wrong are found by what a pass leaves, since the same pass must leave the same bits anywhere.

One shard of every n-th step is computed by others, too: in memory of their own, before their own shards. What the
passes have left is told to the coordinator as digests, when the segment is over; so nobody waits for anybody.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from dist_relu.core.arrays import Array, aligned_empty
from dist_relu.engine.batches import Batch, Feed
from dist_relu.engine.plan import StepPlan
from dist_relu.errors import FaultyWorker
from dist_relu.nn import Sequential
from dist_relu.nn.passes import Layout, ShardPass, forward_backward
from dist_relu.partition import bounds
from dist_relu.reduction.pieces import TAIL
from dist_relu.reduction.plan import ReductionPlan
from dist_relu.reduction.slots import views_of
from dist_relu.runtime.process_info import ProcessInfo

MAX_VERIFIED = 100
"""After so many verified steps, workers wait until all digests were compared."""


@dataclass(frozen=True)
class Digest:
    """The pass over a shard in a step has left what has this digest."""

    step: int
    shard: int
    digest: bytes


def num_verified(first: int, stop: int, every: int) -> int:
    """Count the verified ones among the steps from number `first` to `stop` - 1: the last of every so many."""
    return stop // every - first // every


def verified_shard(step: int, every: int, shards: int, workers: int) -> tuple[int, Collection[int]] | None:
    """Return which shard of a step is verified, and the ranks of those who do so; None if no shard is.

    It goes round. Two other workers verify it, so that the majority tells who is wrong; the other one of two; of one
    worker the same, who may be wrong once and right once.
    """
    if (step + 1) % every:
        return None
    turn = (step + 1) // every - 1
    shard = turn % shards
    owner = next(rank for rank, (first, stop) in enumerate(bounds(shards, workers)) if first <= shard < stop)
    others = [rank for rank in range(workers) if rank != owner] or [owner]
    begin = turn // shards
    return shard, {others[(begin + i) % len(others)] for i in range(2)}


@final
class Verifier:
    """A verifier is one worker's part: it computes shards of others, and notes what passes over verified shards leave.

    For every step `begin`, then for its first batch `verify` before the passes over the worker's shards, and `note`
    behind each of these.
    """

    def __init__(
        self,
        every: int,
        rank: int,
        plan: StepPlan,
        reduction: ReductionPlan,
        layout: Layout,
        model: Sequential,
        feed: Feed,
        arrays: Sequence[Array],
    ) -> None:
        """every: see `verified_shard`.  model: where the worker's passes go through.  arrays: of their arena."""
        self._every, self._rank, self._plan, self._workers = every, rank, plan, reduction.workers
        self._model, self._feed, self._arrays = model, feed, arrays
        self._factors = sorted({number for factors in layout.products.values() for number in factors})
        num_rows = -(-plan.batch_size // plan.shards)
        self._own_arrays = layout.arrays(aligned_empty((layout.size_bytes(num_rows),), np.uint8), num_rows)
        self._pass = ShardPass(layout, self._own_arrays, model.params, plan.seed)
        self._row = np.empty(reduction.num_columns + TAIL, model.dtype)
        summed = [param for number, param in enumerate(model.params) if number not in layout.products]
        views = views_of(self._row, [param.shape for param in summed])
        self._gradients = [(param.places(), view) for param, view in zip(summed, views, strict=True)]
        self._step = 0
        self._shard: int | None = None
        self._verifies = False
        self._digests: list[Digest] = []

    def begin(self, step: int) -> None:
        """Begin with a step."""
        verified = verified_shard(step, self._every, self._plan.shards, self._workers)
        self._step = step
        self._shard, self._verifies = (verified[0], self._rank in verified[1]) if verified else (None, False)

    def verify(self, batch: Batch) -> None:
        """Pass over the verified shard, if this worker is to do so.  Gradients point to memory of its own behind it."""
        if self._shard is None or not self._verifies or batch.place:
            return
        first, stop = batch.shard_bounds[self._shard]
        if first == stop:
            return
        for places, view in self._gradients:
            places["grad"] = view
        run = self._pass
        run.enter(0, stop - first, batch_size=batch.step_size, step=batch.number, shard=self._shard)
        x, loss, targets = self._feed.gather(batch, self._shard, run)
        sums = np.empty(2)
        forward_backward(self._model, loss, x, targets, 1 / batch.step_size, run, sums)
        self._add(self._own_arrays, slice(0, stop - first), self._row, sums)

    def note(self, batch: Batch, shard: int, row: Array, sums: Array) -> None:
        """Note what the worker's own pass over a shard has left, if it is verified.

        row: of the reducer.  sums: the loss of the shard, and its number of correct predictions.
        """
        first, stop = batch.shard_bounds[shard]
        if shard == self._shard and not batch.place and first < stop:
            self._add(self._arrays, slice(first, stop), row, sums)

    def take_digests(self) -> list[Digest]:
        """Hand over what was noted since the last time."""
        digests, self._digests = self._digests, []
        return digests

    def _add(self, arrays: Sequence[Array], rows: slice, row: Array, sums: Array) -> None:
        digest = hashlib.sha256(sums.tobytes())
        digest.update(row[:-TAIL].data)
        for number in self._factors:
            digest.update(arrays[number][rows].data)
        assert self._shard is not None
        self._digests.append(Digest(self._step, self._shard, digest.digest()))


def check_digests(of_workers: Sequence[Sequence[Digest]], peers: Sequence[ProcessInfo]) -> None:
    """Raise FaultyWorker where digests of the same pass differ.

    of_workers: by rank, in the order of the steps.  peers: the workers, by rank.
    """
    found: dict[tuple[int, int], list[tuple[int, bytes]]] = {}
    for rank, digests in enumerate(of_workers):
        for digest in digests:
            found.setdefault((digest.step, digest.shard), []).append((rank, digest.digest))
    for (step, shard), passes in sorted(found.items()):
        if len({digest for _, digest in passes}) > 1:
            raise _faulty(step, shard, passes, peers)


def _faulty(step: int, shard: int, passes: Sequence[tuple[int, bytes]], peers: Sequence[ProcessInfo]) -> FaultyWorker:
    """Say who is wrong: whoever does not agree with the majority; all, where there is none."""
    names = {rank: f"worker {rank} (host {peers[rank].host}, pid {peers[rank].pid})" for rank, _ in passes}
    commonest, times = Counter(digest for _, digest in passes).most_common(1)[0]
    wrong = sorted({rank for rank, digest in passes if times == 1 or digest != commonest})
    who = " or ".join(names[rank] for rank in wrong)
    if times > 1:
        whose = " and ".join(names[rank] for rank, digest in passes if digest == commonest)
        whose = f"It differs from {whose}, who agree."
    elif len(names) == 1:
        whose = "Both passes are its own."
    else:
        whose = "With three workers or more the majority tells which."
    error = FaultyWorker(
        f"W{who[1:]} computes wrong: passes over shard {shard} in step {step} have left different bits. {whose} "
        "(Or a layer or loss of your own is not the same in every pass.)"
    )
    error.step, error.shard, error.workers = step, shard, wrong
    error.hosts = [peers[rank].host for rank in wrong]
    return error

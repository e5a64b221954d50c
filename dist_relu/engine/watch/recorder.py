"""What workers note of watched steps, and how it comes together while the run goes on.

Each shard of a watched step has a row of notes, in memory that the workers of a node share. After the step the first
workers of the other nodes send their rows to worker 0, which reports all of them to the coordinator from time to time.
There they are added up in the order of the shards; so the numbers depend on the shards, as the run itself does, and not
on the workers. The rows of two steps are enough, since nobody can be two steps ahead of worker 0.

Whether a unit was 0 for every sample of an epoch can't be told from some of its steps. So every worker keeps in mind,
in all steps, which units it has seen nothing but zeros of; after the epoch these come together in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, final

import numpy as np

from dist_relu.comm.channel import MAX_TAG
from dist_relu.comm.shared_memory import Handles
from dist_relu.core.arrays import Array, as_rows
from dist_relu.kernels.histogram import (
    NUM_BINS,
    bin_of_place,
    count_sums,
    empty_table,
    keep_zero_columns,
    output_statistics,
    take_counts,
)
from dist_relu.nn.layer import PassObserver, PreactivationObserver
from dist_relu.partition import bounds
from dist_relu.runtime.world import World

NUM_SLOTS = 2
_TAG = MAX_TAG - 1


def row_dtype(units: Sequence[int]) -> np.dtype[np.void]:
    """The notes of a shard, of passes with so many units (places on the last axis) each.

    zeros: outputs that are 0.  counts: what went into the activation of a pass, by bins; the last bin is for what is no
    number, and all are 0 where nothing is known.  mean, squares: of outputs, and the sum of squared distances from it.
    active: a bit for each unit of all passes, set where it was not 0 for some sample.
    """
    return np.dtype(
        [
            ("zeros", np.int64, (len(units),)),
            ("counts", np.int64, (len(units), NUM_BINS + 1)),
            ("mean", np.float64, (len(units),)),
            ("squares", np.float64, (len(units),)),
            ("active", np.uint8, (-(-sum(units) // 8),)),
        ]
    )


@dataclass(frozen=True, kw_only=True)
class WatchRequest:
    """What workers need to watch.  every: one of how many steps.

    rows: (NUM_SLOTS, shards), of `row_dtype`.  active: (workers, bytes), a bit for each unit of all passes, set where
    the worker has seen it do anything since the epoch began; valid when the epoch is over.
    """

    every: int
    units: Sequence[int]
    rows: Handles
    active: Handles


@final
class Recorder:
    """Records what one worker sees of its passes, and brings it to worker 0."""

    def __init__(self, world: World, request: WatchRequest, dtype: np.dtype[Any]) -> None:
        """dtype: the model's."""
        self._world, self._every = world, request.every
        self._rows: Array = world.node.attach(request.rows)
        self._active: Array = world.node.attach(request.active)
        self._silent = _SilentUnits(request.units)
        shards = bounds(self._rows.shape[1], world.size)
        self._mine = slice(*shards[world.rank])
        self._shards_of_node = [slice(shards[ranks[0]][0], shards[ranks[-1]][1]) for ranks in world.nodes]
        counts = _Counts(request.units, dtype)
        self._observers = [_ShardObserver(request.units, self._silent, counts) for _ in range(*shards[world.rank])]
        self._num_units = sum(request.units)
        self._slot = self._rows[0]
        self._under_way = 0

    def watches(self, step: int) -> bool:
        return step % self._every == 0

    def begin_epoch(self) -> None:
        """An epoch begins, in which no unit has been active yet."""
        self._silent.begin()

    def end_epoch(self) -> Array | None:
        """Which units were active in the epoch, (units,); collective.  Worker 0 gets them."""
        self._active[self._world.rank] = np.packbits(self._silent.active())
        self._world.barrier.wait()
        rows = self._collect(self._active, [slice(ranks.start, ranks.stop) for ranks in self._world.nodes])
        if rows is None:
            return None
        return np.unpackbits(np.bitwise_or.reduce(rows, axis=0), count=self._num_units).astype(np.bool)

    def begin(self, step: int) -> None:
        """A watched step begins: clear the notes of this worker's shards, some of which may have no samples in it."""
        self._slot = self._rows[step // self._every % NUM_SLOTS]
        self._slot[self._mine] = 0

    def observer(self, shard: int, *, is_watched: bool) -> PassObserver:
        """Who looks on while a pass goes over a shard, in a watched step or another one."""
        if is_watched:
            observer = self._observers[shard - self._mine.start]
            observer.begin(self._slot[shard])
            return observer
        return self._silent

    def gather(self) -> Array | None:
        """The notes of all shards, when all workers have met behind the step; worker 0 gets them."""
        return self._collect(self._slot, self._shards_of_node)

    def _collect(self, rows: Array, of_node: Sequence[slice]) -> Array | None:
        """Bring all rows to worker 0, which gets a copy.  of_node: those that each node has filled."""
        progress_engine = self._world.progress_engine
        if progress_engine and self._world.node.rank == 0:
            others = [node for node in range(len(self._world.nodes)) if node != self._world.node.number]
            with progress_engine.lock:
                if self._world.rank == 0:
                    self._under_way = len(others)
                    for node in others:
                        notes = rows[of_node[node]].view(np.uint8)
                        progress_engine.receive(notes, self._world.nodes[node].start, _TAG, self._through)
                else:
                    self._under_way = 1
                    notes = rows[of_node[self._world.node.number]].view(np.uint8)
                    progress_engine.send(notes, 0, _TAG, self._through)
            progress_engine.wait_until(lambda: not self._under_way)
        return rows.copy() if self._world.rank == 0 else None

    def _through(self) -> None:
        self._under_way -= 1


@final
class _Counts:
    """The arrays that it takes to count what goes into the activation of each pass, until its output is seen."""

    def __init__(self, units: Sequence[int], dtype: np.dtype[Any]) -> None:
        self.histograms = [empty_table(dtype) for _ in units]
        self.bin_of_place = bin_of_place(dtype)


@final
class _ShardObserver(PreactivationObserver):
    """Fills the notes of a shard, see `row_dtype`; those of all shards share the arrays that it takes to count."""

    def __init__(self, units: Sequence[int], silent: _SilentUnits, counts: _Counts) -> None:
        self._silent = silent
        self._histograms, self._bin_of_place = counts.histograms, counts.bin_of_place
        stops = np.cumsum([0, *units])
        self._nonzero = np.zeros(stops[-1], np.int64)
        self._scratch = [
            (self._nonzero[first:stop], *np.empty((2, stop - first))) for first, stop in pairwise(stops.tolist())
        ]
        self._last = len(units) - 1

    def begin(self, row: Array) -> None:
        """A pass over a shard begins.  row: its notes."""
        self._row = row
        self._zeros, self._means, self._squares, self._counts = (
            row[name] for name in ("zeros", "mean", "squares", "counts")
        )

    def see_preactivations(self, number: int, x: Array, bias: Array | None) -> None:
        bias = np.zeros(x.shape[-1], x.dtype) if bias is None else bias
        count_sums(as_rows(x), bias, self._histograms[number])

    def see_output(self, number: int, y: Array) -> None:
        self._silent.see_output(number, y)
        statistics = output_statistics(as_rows(y), *self._scratch[number])
        self._zeros[number], self._means[number], self._squares[number] = statistics
        take_counts(self._histograms[number], self._bin_of_place, self._counts[number])
        if number == self._last:
            self._row["active"][:] = np.packbits(self._nonzero > 0)


@final
class _SilentUnits(PassObserver):
    """The units of all passes that this worker has seen nothing but zeros of.

    Nearly all units are active for one of the first samples and are not looked at again, so it costs a step little.
    """

    def __init__(self, units: Sequence[int]) -> None:
        self._units = units
        self.begin()

    def begin(self) -> None:
        """Forget what was seen."""
        self._silent = [np.arange(num_units) for num_units in self._units]
        self._num_silent = list(self._units)

    def see_output(self, number: int, y: Array) -> None:
        """Cross out the units that are not 0 for some sample."""
        if self._num_silent[number]:
            silent = self._silent[number]
            self._num_silent[number] = keep_zero_columns(as_rows(y), silent, self._num_silent[number])

    def active(self) -> Array:
        """For each unit of all passes whether it has been crossed out, (units,)."""
        active = [np.ones(num_units, np.bool) for num_units in self._units]
        for mask, silent, num_silent in zip(active, self._silent, self._num_silent, strict=True):
            mask[silent[:num_silent]] = False
        return np.concatenate(active)

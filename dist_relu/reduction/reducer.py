"""How the gradient of a batch becomes whole, from what all workers' passes have left: on one node, and over several.

On one node nothing is done beforehand: whoever updates a chunk adds what lies in slots and arena on the way. Over
several, the workers of a node add what lies on it, bucket by bucket while backward still runs, and exchange the
buckets with the other nodes; what they update from are finished sums.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from dist_relu.comm.barrier import NodeBarrier
from dist_relu.comm.exchange import Exchange, OrderedSum
from dist_relu.core.arrays import Array
from dist_relu.kernels.ordered_sum import ordered_sum
from dist_relu.nn import Sequential
from dist_relu.partition import SummationTree, balance, bounds
from dist_relu.reduction.buckets import HEAD, Load, stages_of
from dist_relu.reduction.chunks import Chunk, Piece, Sources, chunk_of, joined, piece_of
from dist_relu.reduction.slots import TAIL, Slots
from dist_relu.reduction.sources import SlotSource, Source
from dist_relu.runtime.world import World

ShardBounds = Sequence[tuple[int, int]]


class Sums(ABC):
    """Where the gradients of a batch come together.

    For every batch: `begin`, then a pass over each shard, the last one with `left`, then `finish`.
    """

    @property
    @abstractmethod
    def chunks(self) -> Sequence[Chunk]:
        """What this worker updates, with sources that are complete after `finish`."""

    @abstractmethod
    def begin(self, shard_bounds: ShardBounds) -> None:
        """A batch begins.  shard_bounds: its rows in each shard."""

    @property
    @abstractmethod
    def left(self) -> Callable[[int], object] | None:
        """To be called in the pass over the last shard of this worker, see `Sequential.backward`; None: no need to."""

    @abstractmethod
    def finish(self) -> tuple[float, int]:
        """The last pass is over and its row still to be carried: wait until all is complete.

        Returns the summed loss and num_correct.  Collective.
        """


@dataclass(frozen=True)
class Parts:
    """What sums are made of.  costs: seconds for each piece.  generations: (2, 1 + states, P)."""

    model: Sequential
    pieces: Sequence[Piece]
    costs: Sequence[float]
    sources: Sources
    slots: Slots
    shards: int
    generations: Array


def sums_of(world: World, parts: Parts, sums: Array) -> Sums:
    """The sums of a worker.  sums: (`sums_size`,), shared by its node."""
    return _SumsOfNode(world, parts) if world.progress_engine is None else _SumsOverNodes(world, parts, sums)


def sums_size(num_params: int, num_nodes: int) -> int:
    """How many numbers the finished sums take, which one node does without."""
    return HEAD + num_params if num_nodes > 1 else 0


@final
class _SumsOfNode(Sums):
    """On one node a gradient is complete when all workers have left theirs."""

    def __init__(self, world: World, parts: Parts) -> None:
        everything = range(parts.shards)
        self._chunks = [
            chunk_of(
                numbers,
                parts.pieces,
                parts.model,
                parts.sources.source(piece_of(numbers, parts.pieces), everything),
                parts.generations,
            )
            for numbers in joined(balance(parts.costs, world.size)[world.rank], parts.pieces)
        ]
        self._slots = parts.slots
        self._barrier = world.node.barrier

    @property
    def chunks(self) -> Sequence[Chunk]:
        return self._chunks

    def begin(self, shard_bounds: ShardBounds) -> None:
        pass

    @property
    def left(self) -> None:
        return None

    def finish(self) -> tuple[float, int]:
        self._slots.carry()
        self._barrier.wait()
        return self._slots.total_tail()


@final
class _SumsOverNodes(Sums):
    """Over several nodes, buckets are summed on each node and then between nodes.

    The workers of a node meet before each stage, since each adds what all of them have left.
    """

    def __init__(self, world: World, parts: Parts, sums: Array) -> None:
        assert world.progress_engine is not None
        self._slots = parts.slots
        self._barrier: NodeBarrier = world.node.barrier
        self._progress_engine = world.progress_engine
        self._tail = sums[HEAD - TAIL : HEAD]
        num_columns = parts.slots.rows.shape[1] - TAIL
        self._stages = stages_of(parts.pieces, parts.costs, world.nodes, num_columns, sums.itemsize)
        mine = [load for stage in self._stages for load in stage.loads if world.rank in load.bucket.ranks]
        tree, shards_of_worker = SummationTree(parts.shards), bounds(parts.shards, world.size)
        subtrees = [
            tree.fold(tree.leaves(shards_of_worker[ranks[0]][0], shards_of_worker[ranks[-1]][1]))[1]
            for ranks in world.nodes
        ]
        carries, _ = tree.fold([node for nodes in subtrees for node in nodes])
        buckets = [load.bucket for load in mine]
        add = OrderedSum(carries, sums.dtype)
        self._exchange = Exchange(
            world.progress_engine, world.node.number, buckets, [len(nodes) for nodes in subtrees], add, sums
        )
        own_shards = [tree.shards_of(node) for node in subtrees[world.node.number]]
        self._terms = {load.bucket.number: _terms(load, parts, own_shards) for load in mine}
        self._mine = [[load.bucket for load in stage.loads if load in mine] for stage in self._stages]
        self._chunks = [
            chunk_of(
                numbers, parts.pieces, parts.model, _finished(sums, parts.pieces[numbers.start]), parts.generations
            )
            for load in mine
            for numbers in joined(load.pieces, parts.pieces)
        ]
        self._shard_bounds: ShardBounds = ()
        self._next = 0  # stage
        ordered_sum(sums[:1].reshape(1, 1), 0, np.zeros(1, np.int64), np.empty((1, 1), sums.dtype), sums[:0])  # load it

    @property
    def chunks(self) -> Sequence[Chunk]:
        return self._chunks

    def begin(self, shard_bounds: ShardBounds) -> None:
        self._shard_bounds = shard_bounds
        self._next = 0
        self._exchange.begin()

    @property
    def left(self) -> Callable[[int], object]:
        return self._send_full_buckets

    def finish(self) -> tuple[float, int]:
        self._slots.carry_columns(-TAIL, None)  # loss and num_correct go with the last stage
        while self._next < len(self._stages):
            self._send_stage()
        self._exchange.wait()
        self._barrier.wait()
        return float(self._tail[0]), int(self._tail[1])

    def _send_full_buckets(self, first_param: int) -> None:
        while self._next < len(self._stages) - 1 and self._stages[self._next].first_param >= first_param:
            self._send_stage()
            self._progress_engine.wake()

    def _send_stage(self) -> None:
        """Add what the workers of this node have left of the next stage, each its own buckets, and send the sums."""
        self._slots.carry_columns(*self._stages[self._next].columns)
        self._barrier.wait()
        for bucket in self._mine[self._next]:
            rows = self._exchange.rows(bucket)
            for term in self._terms[bucket.number]:
                partial_sums = term.source.partial_sums(self._shard_bounds[term.shards])
                ordered_sum(*partial_sums, rows[term.row, term.columns])
            self._exchange.leave(bucket)
        self._next += 1


@dataclass(frozen=True)
class _Term:
    """What is to be added into some columns of a row of a bucket: the sum over these shards."""

    source: Source
    shards: slice
    row: int
    columns: slice


def _terms(load: Load, parts: Parts, shards_of_row: Sequence[range]) -> list[_Term]:
    terms: list[_Term] = []
    for row, shards in enumerate(shards_of_row):
        among = slice(shards.start, shards.stop)

        def add(source: Source, start: int, stop: int, row: int = row, among: slice = among) -> None:
            terms.append(_Term(source, among, row, slice(start - load.bucket.start, stop - load.bucket.start)))

        if load.bucket.start < HEAD:
            add(parts.slots.source(parts.slots.rows.shape[1] - TAIL, shards), HEAD - TAIL, HEAD)
        for numbers in joined(load.pieces, parts.pieces):
            piece = piece_of(numbers, parts.pieces)
            add(parts.sources.source(piece, shards), HEAD + piece.start, HEAD + piece.stop)
    return terms


def _finished(sums: Array, piece: Piece) -> Source:
    return SlotSource(sums.reshape(1, -1), HEAD + piece.start, [0])

"""Over several nodes a gradient is summed on each, and then between them, stage by stage.

The workers of a node meet before each stage, since each adds what all of them have left.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import final

from dist_relu.comm.blocks import Section
from dist_relu.comm.exchange import Exchange, OrderedSum
from dist_relu.comm.halves import Halves
from dist_relu.comm.marks import SUM
from dist_relu.kernels.ordered_sum import ordered_sum
from dist_relu.partition import SummationTree
from dist_relu.reduction.buckets import HEAD, Load
from dist_relu.reduction.pieces import TAIL, join
from dist_relu.reduction.plan import ReductionPlan
from dist_relu.reduction.slots import Slots
from dist_relu.reduction.sources import ReductionMemory, ShardBounds, Source, Sources
from dist_relu.runtime.world import World


@final
class InternodeSum:
    """A worker adds what its node has left of its own buckets, and exchanges them with the other nodes.

    tail: (TAIL,), the sum of all slots' tails when all totals are there.
    """

    def __init__(
        self, world: World, plan: ReductionPlan, memory: ReductionMemory, slots: Slots, sources: Sources
    ) -> None:
        """slots: where this worker leaves its gradients."""
        assert world.progress_engine is not None
        self._slots = slots
        self._barrier = world.node.barrier
        self._progress_engine = world.progress_engine
        self.tail = memory.totals[HEAD - TAIL : HEAD]
        self._stages = plan.stages
        held = [plan.subtrees_of_node(number) for number in range(len(plan.nodes))]
        tree = SummationTree(plan.shards)
        mine = [[load for load in stage.loads if world.rank in load.bucket.ranks] for stage in plan.stages]
        self._mine = [[load.bucket for load in loads] for loads in mine]
        self._exchange = Exchange(
            world.progress_engine,
            world.node.number,
            [bucket for buckets in self._mine for bucket in buckets],
            tree,
            held,
            partial(OrderedSum, dtype=memory.totals.dtype),
            memory.totals,
            _sections(plan, memory),
        )
        shards_of_row = [tree.shards_of(subtree) for subtree in held[world.node.number]]
        self._terms = {
            load.bucket.number: [
                term for row, shards in enumerate(shards_of_row) for term in _terms(load, row, shards, plan, sources)
            ]
            for loads in mine
            for load in loads
        }
        self._shard_bounds: ShardBounds = ()
        self._next = 0  # stage

    def begin(self, shard_bounds: ShardBounds) -> None:
        """Begin with a batch: let what the other nodes send for it come in."""
        self._shard_bounds = shard_bounds
        self._next = 0
        self._exchange.begin()

    def send_ready(self, first_param: int) -> None:
        """Let go what is complete when the last shard's gradients are left from this parameter on; collective."""
        before = self._next
        while self._next < len(self._stages) - 1 and self._stages[self._next].first_param >= first_param:
            self._send_stage()
            self._progress_engine.wake()
        if self._barrier.marks and self._next > before:
            self._barrier.marks.back_to_pass()

    def finish(self) -> None:
        """Let the rest go, and wait for all totals.  Collective."""
        self._slots.carry_columns(-TAIL, None)  # the tail goes with the last stage
        while self._next < len(self._stages):
            self._send_stage()
        self._exchange.wait()
        self._barrier.wait()

    def _send_stage(self) -> None:
        """Add what the workers of this node have left of the next stage, each its own buckets, and send the sums."""
        if self._barrier.marks:
            self._barrier.marks.enter(SUM, self._next)
        self._slots.carry_columns(*self._stages[self._next].columns)
        self._barrier.wait()
        for bucket in self._mine[self._next]:
            rows = self._exchange.rows(bucket)
            for term in self._terms[bucket.number]:
                partial_sums = term.source.partial_sums(self._shard_bounds[term.shards])
                ordered_sum(*partial_sums, rows[term.row][term.columns])
            self._exchange.leave(bucket)
        self._next += 1


def _sections(plan: ReductionPlan, memory: ReductionMemory) -> list[Section]:
    """Cut the totals into what is rounded and what is not: the tail of the slots, and running means."""
    if not plan.rounding:
        return []
    halves = Halves(plan.rounding, plan.num_params)
    sections = [Section(0, HEAD)]
    for is_trained, run in groupby(plan.pieces, lambda piece: memory.params[piece.param].momentum is None):
        *_, last = run
        sections.append(Section(sections[-1].stop, HEAD + last.stop, halves if is_trained else None))
    return sections


@dataclass(frozen=True, kw_only=True)
class _Term:
    """A term is to be added into some columns of a row of a bucket: the sum over these shards."""

    source: Source
    shards: slice
    row: int
    columns: slice


def _terms(load: Load, row: int, shards: range, plan: ReductionPlan, sources: Sources) -> list[_Term]:
    """List what comes into a row of a bucket, which holds the sum over these shards."""
    places: list[tuple[Source, int, int]] = []
    if load.bucket.start < HEAD:
        places.append((sources.of_tail(shards), HEAD - TAIL, HEAD))
    for numbers in load.chunks:
        piece = join(numbers, plan.pieces)
        places.append((sources.rounded(sources.of_piece, piece, shards), HEAD + piece.start, HEAD + piece.stop))
    first = load.bucket.start
    return [
        _Term(
            source=source,
            shards=slice(shards.start, shards.stop),
            row=row,
            columns=slice(start - first, stop - first),
        )
        for source, start, stop in places
    ]

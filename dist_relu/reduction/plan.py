"""The plan of a reduction says who adds what, where it lies, and what travels, before anything is done.

The coordinator makes it once, from the model and the workers, and allocates by it; the workers get it with their
request and find their parts by rank. It knows no process and no array, so it can be looked at on its own.

Every worker adds its shards one after the other along the summation tree and is left with a few *subtrees*. Each has a
row in the *slots*, which the workers of a node share. On one node whoever owns a chunk of the vector adds these rows.
Over several, *stages* of buckets leave while backward still runs, and what comes back are the *totals*.

Sums of *groups* of shards, which are wanted apart, come to all nodes instead (`dist_relu.reduction.gathering`). But
where these, and all sums of them, are only to be rounded to 16 bits, stages will do, if each node has whole groups.

P parameters, S shards.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import prod
from typing import Self

from dist_relu.comm.buckets import BUCKET_BYTES
from dist_relu.comm.halves import HALF_BYTES, Rounding
from dist_relu.nn import Param
from dist_relu.partition import SummationTree, TreeNode, balance, bounds, level_of_groups
from dist_relu.reduction.buckets import HEAD, Stage, stages_of
from dist_relu.reduction.pieces import TAIL, Piece, costs_of, cut, group_tiles

_PER_LINE = 16
"""Numbers of float32 in a cache line."""


@dataclass(frozen=True, kw_only=True)
class ReductionPlan:
    """This plan says how the partial gradients of all shards become the whole one, and who updates from it.

    nodes: the ranks of each.  num_params: P.  num_vectors: of a generation: the parameters, the optimiser's states, and
    their average.  num_columns: of a slot, without its tail.
    pieces: of the flat vector, in their order.
    chunks: by rank, the numbers of the pieces that the worker sums and updates at a time; all workers of a node have
    all pieces among them.
    subtrees: by rank, what the worker's shards come to; their rows in the slots stand in this order.
    stages: what the nodes exchange, in the order in which it leaves; none on one node.
    group_level: of the summation tree, whose nodes there are groups of shards. Their sums are formed apart, on every
    node of the cluster, and are not added here, unless they are rounded.  None: there are no groups.
    rounding: what sums of groups are rounded to, and all sums of these; None: they are not.
    """

    nodes: Sequence[range]
    shards: int
    num_params: int
    num_vectors: int
    num_columns: int
    pieces: Sequence[Piece]
    chunks: Sequence[Sequence[range]]
    subtrees: Sequence[Sequence[TreeNode]]
    stages: Sequence[Stage]
    group_level: int | None = None
    rounding: Rounding | None = None

    @classmethod
    def of(
        cls,
        params: Sequence[Param],
        products: Collection[int],
        *,
        nodes: Sequence[range],
        shards: int,
        batch_size: int,
        num_vectors: int,
        itemsize: int,
        by_param: bool = False,
        bucket_bytes: int = BUCKET_BYTES,
        groups: int | None = None,
        rounding: Rounding | None = None,
    ) -> Self:
        """Plan for a model with these parameters.

        products: the numbers of those whose gradients are left as products, see `dist_relu.nn.passes`.  itemsize: of
        an element, in bytes.  by_param: no piece holds elements of two parameters.  bucket_bytes: of a message between
        nodes, about.  groups: of shards, whose sums are wanted apart.  rounding: of these sums.
        """
        workers = nodes[-1].stop
        group_level = None if groups is None else level_of_groups(shards, groups)
        tree = SummationTree(shards, group_level)
        subtrees = [tree.fold(tree.leaves(first, stop))[1] for first, stop in bounds(shards, workers)]
        pieces = cut(params, products, by_param=by_param)
        costs = costs_of(pieces, sum(map(len, subtrees)), num_vectors, batch_size, itemsize)
        num_columns = sum(prod(param.shape) for number, param in enumerate(params) if number not in products)
        has_whole_groups = rounding is not None and _have_whole_groups(nodes, shards, group_level or 0)
        if len(nodes) == 1 or (groups is not None and not has_whole_groups):
            stages: list[Stage] = []
            shares = [numbers for ranks in nodes for numbers in balance(costs, len(ranks))]
            chunks = [group_tiles(numbers, pieces) for numbers in shares]
        else:
            whole_tree, sent_bytes = SummationTree(shards), HALF_BYTES if rounding else itemsize
            held = [_subtrees(whole_tree, bounds(shards, workers), ranks) for ranks in nodes]
            stages = stages_of(pieces, costs, nodes, whole_tree, held, num_columns, sent_bytes, bucket_bytes)
            loads = [load for stage in stages for load in stage.loads]
            chunks = [
                [chunk for load in loads if rank in load.bucket.ranks for chunk in load.chunks]
                for rank in range(workers)
            ]
        return cls(
            nodes=nodes,
            shards=shards,
            num_params=sum(prod(param.shape) for param in params),
            num_vectors=num_vectors,
            num_columns=num_columns,
            pieces=pieces,
            chunks=chunks,
            subtrees=subtrees,
            stages=stages,
            group_level=group_level,
            rounding=rounding,
        )

    @property
    def workers(self) -> int:
        return self.nodes[-1].stop

    @property
    def gathers(self) -> bool:
        """Tell whether what workers have summed alone comes to all nodes, and is added nowhere on the way."""
        return len(self.nodes) > 1 and not self.stages

    @property
    def slots_shape(self) -> tuple[int, int]:
        """Slots have a row for every subtree that a worker sums alone; it holds all gradients that are no products."""
        return sum(map(len, self.subtrees)), self.num_columns + TAIL

    @property
    def totals_shape(self) -> tuple[int]:
        """Totals are finished sums, behind a head that ends with the tail of the slots; one node does without.

        Where nodes gather they are a row of that for every subtree that a worker sums alone, of all nodes.
        """
        row = HEAD + self.num_params
        if self.gathers:
            return (sum(map(len, self.subtrees)) * row,)
        return (row if self.stages else 0,)

    @property
    def generations_shape(self) -> tuple[int, int, int]:
        """Generations are two of all the flat vectors, with room behind each up to the end of a cache line.

        So weights lie alike in both of them. Where their rows begin in the middle of a line, products that read them
        take a tenth longer.
        """
        return 2, self.num_vectors, -(-self.num_params // _PER_LINE) * _PER_LINE

    @property
    def groups(self) -> Sequence[range]:
        """Return the shards of each group whose sum is wanted apart; one of all shards where there are no groups."""
        if self.group_level is None:
            return [range(self.shards)]
        tree, size = SummationTree(self.shards), 1 << self.group_level
        return [tree.shards_of(TreeNode(self.group_level, number)) for number in range(-(-self.shards // size))]

    @property
    def tree_of_worker(self) -> SummationTree:
        """Return the summation tree as far as a worker adds along it before the others are asked."""
        return SummationTree(self.shards, self.group_level)

    def shards_of(self, rank: int) -> range:
        """Return the shards that a worker computes."""
        return range(*bounds(self.shards, self.workers)[rank])

    def subtrees_of_node(self, number: int) -> list[TreeNode]:
        """Return what the shards of all workers of a node come to, when they are added along the summation tree."""
        return _subtrees(SummationTree(self.shards), bounds(self.shards, self.workers), self.nodes[number])


def _subtrees(tree: SummationTree, shards: Sequence[tuple[int, int]], ranks: range) -> list[TreeNode]:
    """Return what the shards of neighbouring workers come to.  shards: of all workers."""
    return tree.fold(tree.leaves(shards[ranks[0]][0], shards[ranks[-1]][1]))[1]


def _have_whole_groups(nodes: Sequence[range], shards: int, group_level: int) -> bool:
    """Tell whether no group of shards is spread over nodes."""
    bounds_of_workers = bounds(shards, nodes[-1].stop)
    return all(bounds_of_workers[ranks.start][0] % (1 << group_level) == 0 for ranks in nodes)

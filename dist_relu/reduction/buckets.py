"""Buckets are what the nodes exchange a gradient in: what each holds, and when it can leave.

Backward leaves gradients from the last parameter to the first, and so buckets are filled from the end of the vector.
P parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dist_relu.comm.buckets import Bucket, assign_buckets, choose_cutting
from dist_relu.partition import SummationTree, TreeNode
from dist_relu.reduction.pieces import TAIL, Piece, group_tiles

HEAD = 16
"""Numbers before the gradient in the sums: a cache line or two, whose last ones are the tail of the slots."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """A load is a bucket with what it holds of the vector: the numbers of the pieces that are added at a time."""

    bucket: Bucket
    chunks: Sequence[range]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The buckets of a stage are full once the gradients of all parameters from `first_param` on are left.

    columns: what of the slots they hold.
    """

    first_param: int
    columns: tuple[int, int]
    loads: Sequence[Load]


def stages_of(
    pieces: Sequence[Piece],
    costs: Sequence[float],
    nodes: Sequence[range],
    tree: SummationTree,
    held: Sequence[Sequence[TreeNode]],
    num_columns: int,
    itemsize: int,
    bucket_bytes: int,
) -> list[Stage]:
    """Cut the vector into stages, in the order in which backward comes to them; the last one has the tail as well.

    costs: seconds for each piece.  nodes: the ranks of each.  held: the partial sums that each node has, as nodes of
    `tree`.  num_columns: of the slots, without their tail.  itemsize: of an element that travels, in bytes.
    bucket_bytes: about so large are messages.
    """
    cutting = choose_cutting(pieces[-1].stop * itemsize, tree, held, bucket_bytes)
    stretches = _stretches(pieces, cutting.num_buckets)
    cuts = [
        (HEAD + pieces[stretch.start].start if stretch.start else HEAD - TAIL, HEAD + pieces[stretch.stop - 1].stop)
        for stretch in stretches
    ]
    buckets = assign_buckets(cuts, [sum(costs[i] for i in stretch) for stretch in stretches], nodes, cutting.ways)
    stages: list[Stage] = []
    column = num_columns
    for bucket, stretch in zip(buckets, stretches, strict=True):
        load = Load(bucket=bucket, chunks=group_tiles(stretch, pieces))
        first_param = pieces[stretch.start].param
        first_column = min((pieces[i].column for i in stretch if pieces[i].rows is None), default=column)
        loads, end = [load], column
        if stages and stages[-1].first_param == first_param:
            last = stages.pop()
            loads, end = [*last.loads, load], last.columns[1]
        stages.append(Stage(first_param=first_param, columns=(first_column, end), loads=loads))
        column = first_column
    return stages


def _stretches(pieces: Sequence[Piece], num_stretches: int) -> list[range]:
    """Cut the pieces into stretches of about the same size, the last of the vector first."""
    size = pieces[-1].stop
    stretches: list[range] = []
    stop = len(pieces)
    for number in range(1, num_stretches + 1):
        limit = size - size * number // num_stretches
        start = stop
        while start and (pieces[start - 1].start + pieces[start - 1].stop) // 2 >= limit:
            start -= 1
        if number == num_stretches:
            start = 0
        if start < stop:
            stretches.append(range(start, stop))
            stop = start
    return stretches

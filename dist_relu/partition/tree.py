"""In which order numbers are added: the summation tree over S shards, and the walk along it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from typing import Generic, NamedTuple, TypeVar, final

from dist_relu.core.arrays import Array
from dist_relu.errors import PartitionError

T = TypeVar("T")


class TreeNode(NamedTuple):
    """The partial sum of the shards number·2^level to (number+1)·2^level - 1, as far as they exist."""

    level: int
    number: int


class SummationTree:
    """The fixed binary tree over S shards along which gradients are added.

    Shards 2i and 2i+1 are added first, then pairs of pairs, and so on; a node without a sibling is its own
    parent. A worker adds its shards one after another as a binary counter carries and is left with the largest
    subtrees that it holds alone; the sum over workers continues from those along the same tree.
    """

    def __init__(self, shards: int, top: int | None = None) -> None:
        """top: nodes of this level are not added to one another; None: all are."""
        self._shards = shards
        self._top = shards.bit_length() if top is None else top

    def leaves(self, first: int, stop: int) -> list[TreeNode]:
        return [TreeNode(0, shard) for shard in range(first, stop)]

    def fold(self, nodes: Sequence[TreeNode]) -> tuple[list[int], list[TreeNode]]:
        """How to add neighbouring `nodes`, and which nodes that leaves.

        Returns one number per node, and the nodes left. Push node after node onto a stack; after node i, add
        the two topmost entries carries[i] times.
        """
        carries, stack = [], []
        for node in nodes:
            stack.append(self._widest(node))
            carries.append(0)
            while len(stack) > 1 and stack[-1].level < self._top and self._are_siblings(stack[-2], stack[-1]):
                stack.pop()
                left = stack.pop()
                stack.append(self._widest(TreeNode(left.level + 1, left.number // 2)))
                carries[-1] += 1
        return carries, stack

    def shards_of(self, node: TreeNode) -> range:
        """The shards whose sum `node` is."""
        level, number = node
        return range(number << level, min((number + 1) << level, self._shards))

    def _are_siblings(self, left: TreeNode, right: TreeNode) -> bool:
        return left.level == right.level and left.number % 2 == 0 and right.number == left.number + 1

    def _widest(self, node: TreeNode) -> TreeNode:
        """`node`, or its highest ancestor that has no other shards."""
        level, number = node
        while number and number % 2 == 0 and (number + 1) << level >= self._shards:
            level, number = level + 1, number // 2
        return TreeNode(level, number)


def level_of_groups(shards: int, groups: int) -> int:
    """Return the level of the summation tree that has so many nodes.

    Raises PartitionError when there is none.
    """
    counts = [ceil(shards / 2**level) for level in range((shards - 1).bit_length() + 1)]
    if groups not in counts:
        raise PartitionError(
            f"{groups} groups are no nodes of the summation tree over {shards} shards. "
            f"Pass groups={' or '.join(map(str, sorted(counts)))}."
        )
    return counts.index(groups)


@final
class Fold(Generic[T]):
    """Adds terms one after another as a binary counter carries; its compiled twin is `kernels.ordered_sum.sum_block`.

    carries: of `SummationTree.fold`, one number for each term.  add: takes two neighbouring terms, the left one first,
    and returns what stands for both; that may be the left one itself, changed in place.
    """

    def __init__(self, carries: Sequence[int], add: Callable[[T, T], T]) -> None:
        self._carries = carries
        self._add = add
        self._stack: list[T] = []
        self._num_carried = 0

    def begin(self) -> None:
        """Begin anew, with an empty stack."""
        self._stack.clear()
        self._num_carried = 0

    @property
    def depth(self) -> int:
        """How many terms lie on the stack."""
        return len(self._stack)

    @property
    def num_additions(self) -> int:
        """How many additions the next `carry` makes: of the topmost two, then of their sum and the one below, ..."""
        return self._carries[self._num_carried]

    def push(self, term: T) -> None:
        """Lay a term on the stack."""
        self._stack.append(term)

    def carry(self) -> None:
        """Add what the tree adds after the last term."""
        for _ in range(self.num_additions):
            right = self._stack.pop()
            self._stack.append(self._add(self._stack.pop(), right))
        self._num_carried += 1

    def sums(self) -> list[T]:
        """What is left when all terms were pushed and carried, from left to right: one sum for the whole tree."""
        return list(self._stack)


def stack_depth(carries: Sequence[int]) -> int:
    """How many entries the stack holds at most while `carries` is followed."""
    top = depth = 0
    for carry in carries:
        top += 1
        depth = max(depth, top)
        top -= carry
    return depth


class PartialSums(NamedTuple):
    """A gradient that is still to be summed; see `dist_relu.kernels.ordered_sum`.

    rows: (R, >= first + n), contiguous.  carries: (R,) int64.  stack: (>= depth, BLOCK), scratch memory.
    """

    rows: Array
    first: int
    carries: Array
    stack: Array

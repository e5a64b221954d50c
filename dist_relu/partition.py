"""Who computes what: shards, the summation tree, the order of an epoch.

Everything here is a pure function of small integers, so that every process works out the same answer alone.
S is the number of shards, W the number of workers; both stay contiguous: worker 0 has the first shards, and
shard 0 the first rows of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import lru_cache
from itertools import pairwise
from typing import Generic, NamedTuple, TypeVar, final

import numpy as np

from dist_relu.arrays import Array
from dist_relu.errors import PartitionError

T = TypeVar("T")


@lru_cache(maxsize=4096)
def bounds(total: int, parts: int) -> Sequence[tuple[int, int]]:
    """Cut range(total) into contiguous parts whose lengths differ by one at most, the longer ones first."""
    short, longer = divmod(total, parts)
    starts = [i * short + min(i, longer) for i in range(parts + 1)]
    return tuple(pairwise(starts))


def check_fit(num_samples: int, batch_size: int, shards: int, workers: int) -> None:
    """Raise `PartitionError` unless every worker gets a shard and every shard of a batch a sample."""
    if workers > shards:
        raise PartitionError(
            f"{shards} shards leave {workers - shards} of {workers} workers without work. "
            f"Pass workers <= {shards} or shards >= {workers}."
        )
    if batch_size < shards:
        raise PartitionError(
            f"A batch of {batch_size} can't be cut into {shards} shards. "
            f"Pass batch_size >= {shards} or shards <= {batch_size}."
        )
    if num_samples < shards:
        raise PartitionError(f"{num_samples} samples can't be cut into {shards} shards. Pass shards <= {num_samples}.")


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

    def __init__(self, shards: int) -> None:
        self._shards = shards

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
            while len(stack) > 1 and self._are_siblings(stack[-2], stack[-1]):
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


@final
class Fold(Generic[T]):
    """Adds terms one after another as a binary counter carries; its compiled twin is `kernels.update.sum_block`.

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
    """A gradient that is still to be summed; see `dist_relu.kernels.update`.

    rows: (R, >= first + n), contiguous.  carries: (R,) int64.  stack: (>= depth, BLOCK), scratch memory.
    """

    rows: Array
    first: int
    carries: Array
    stack: Array


def balance(costs: Sequence[float], workers: int) -> list[range]:
    """Give each of W workers a contiguous range of items, of about the same cost."""
    middles = np.cumsum(costs) - np.asarray(costs) / 2
    owners = np.minimum(middles * workers / max(sum(costs), 1e-300), workers - 1).astype(int)
    starts = np.searchsorted(owners, np.arange(workers + 1))
    return [range(int(a), int(b)) for a, b in pairwise(starts)]


class Purpose(IntEnum):
    """What random numbers are drawn for; each purpose has streams of its own."""

    INITIAL_WEIGHTS = 1
    EPOCH_ORDER = 2
    DATA_SPLIT = 3
    LAYERS = 4
    AUGMENTATION = 5
    SAMPLES = 6
    ENVIRONMENTS = 7
    ACTIONS = 8
    MINIBATCHES = 9


def generator(seed: int, purpose: Purpose, *coordinates: int) -> np.random.Generator:
    """A generator that is a pure function of (seed, purpose, coordinates): at most three coordinates, each >= 0.

    Philox counts blocks of random bits in four words, of which we set the upper three, so no two streams meet.
    Salmon et al. (2011), "Parallel random numbers: as easy as 1, 2, 3".
    """
    counter = np.zeros(4, np.uint64)
    counter[1 : 1 + len(coordinates)] = coordinates
    return np.random.Generator(np.random.Philox(key=np.array([seed, purpose], np.uint64), counter=counter))


def epoch_order(num_samples: int, seed: int, epoch: int, *, shuffle: bool) -> Array:
    """The order of the samples in an epoch.  Returns (num_samples,) int64."""
    if not shuffle:
        return np.arange(num_samples)
    return generator(seed, Purpose.EPOCH_ORDER, epoch).permutation(num_samples)

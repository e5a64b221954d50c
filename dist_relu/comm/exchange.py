"""How sums over nodes are made: bucket by bucket, in rounds of messages between the nodes.

Who sends what to whom is said by the way of a bucket (`dist_relu.partition.rounds`). What it comes to is a list of
steps for each node: send some arrays, wait until others have come, add; and once a part of the sum is complete, send it
back to where its terms came from. A bucket takes its next step when its messages are there, whatever others do.

Received rows lie beside a node's own in the order of their shards. So additions are those of the summation tree,
whoever was first. Sums that are rounded to 16 bits are so in every node of the tree, and travel with as many bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import final

import numpy as np
import numpy.typing as npt

from dist_relu.comm.blocks import Block, Section, block_of, sections_within
from dist_relu.comm.buckets import Bucket
from dist_relu.comm.channel import MAX_TAG, ProgressEngine
from dist_relu.comm.halves import Halves, RoundedSum
from dist_relu.core.arrays import Array, aligned_empty
from dist_relu.kernels.ordered_sum import BLOCK, ordered_sum
from dist_relu.partition import Part, Round, SummationTree, TreeNode, stack_depth

Add = Callable[[Array, int, Array], object]
"""(rows, first, total): total = all `rows` together from column `first` on, in an order that they alone decide."""


@final
class OrderedSum:
    """Adds rows along the summation tree.  carries: one number for each row."""

    def __init__(self, carries: Sequence[int], dtype: npt.DTypeLike) -> None:
        self._carries = np.array(carries, np.int64)
        self._stack = aligned_empty((stack_depth(carries), BLOCK), np.dtype(dtype))

    def __call__(self, rows: Array, first: int, total: Array) -> None:
        ordered_sum(rows, first, self._carries, self._stack, total)


@final
class Exchange:
    """An exchange is one worker's part in adding over nodes, bucket by bucket.

    mine: the buckets that this worker looks after.  held: the partial sums that each node has, as nodes of `tree`.
    adding: (carries): what adds rows so, where they are not rounded.  sums: the memory of this node where finished
    sums go.  sections: of all of these, which are rounded; none: no sum is.
    """

    def __init__(
        self,
        progress_engine: ProgressEngine,
        node: int,
        mine: Sequence[Bucket],
        tree: SummationTree,
        held: Sequence[Sequence[TreeNode]],
        adding: Callable[[Sequence[int]], Add],
        sums: Array,
        sections: Sequence[Section] = (),
    ) -> None:
        assert all(2 * bucket.number + 1 < MAX_TAG for bucket in mine)
        rounds = {way: way.rounds(tree, held)[node] for way in {bucket.way for bucket in mine}}
        adds = _Adds(adding)
        sections = sections or [Section(0, len(sums))]
        self._courses = {bucket.number: _course(bucket, rounds[bucket.way], adds, sums, sections) for bucket in mine}
        self._progress_engine = progress_engine
        self._unfinished = 0
        self._unsent = 0

    def begin(self) -> None:
        """Begin a new sum: let what the other nodes send for it come in."""
        with self._progress_engine.lock:
            self._unfinished, self._unsent = len(self._courses), 0
            for course in self._courses.values():
                course.position = -1
                for step in course.steps:
                    step.missing = len(step.receives)
                    for message in step.receives:
                        arrived = partial(self._arrived, course, step, message)
                        self._progress_engine.receive(message.block.array, message.rank, message.tag, arrived)

    def rows(self, bucket: Bucket) -> Sequence[Array]:
        """Return where this node's partial sums of a bucket are to be left, each (elements of the bucket,)."""
        return self._courses[bucket.number].rows

    def leave(self, bucket: Bucket) -> None:
        """Send this node's partial sums of a bucket, which are complete, on their way."""
        with self._progress_engine.lock:
            self._step(self._courses[bucket.number])

    def wait(self) -> None:
        """Wait until all buckets of this worker are summed, and nothing is sent from their memory any more.

        Raises TaskAborted when the task was given up.
        """
        self._progress_engine.wait_until(lambda: not (self._unfinished or self._unsent))

    def _step(self, course: _Course) -> None:
        """Take the next step, and those after it for which everything is there."""
        while course.position < len(course.steps) - 1:
            course.position += 1
            step = course.steps[course.position]
            for block in dict.fromkeys(message.block for message in step.sends):
                block.pack()
            for message in step.sends:
                self._unsent += 1
                self._progress_engine.send(message.block.array, message.rank, message.tag, self._sent)
            if step.missing:
                return
            step.add()
        self._unfinished -= 1

    def _arrived(self, course: _Course, step: _Step, message: _Message) -> None:
        message.block.unpack()
        step.missing -= 1
        if not step.missing and course.position >= 0 and course.steps[course.position] is step:
            step.add()
            self._step(course)

    def _sent(self) -> None:
        self._unsent -= 1


@dataclass(frozen=True)
class _Message:
    """A block on its way to a worker, or from there."""

    block: Block
    rank: int
    tag: int


@dataclass(kw_only=True)
class _Step:
    """What is sent when the step begins, what must come before it ends, and what is added then.

    missing: how much of that is still to come.
    """

    sends: Sequence[_Message]
    receives: Sequence[_Message]
    additions: Sequence[Callable[[], object]] = ()
    missing: int = 0

    def add(self) -> None:
        for addition in self.additions:
            addition()


@dataclass(kw_only=True)
class _Course:
    """The course of a bucket.  rows: where this node leaves its own.  position: the step that it is in, -1 before."""

    rows: Sequence[Array]
    steps: Sequence[_Step]
    position: int = field(default=-1)


@final
class _Adds:
    """What adds rows, one of a kind, since each may have memory of its own."""

    def __init__(self, adding: Callable[[Sequence[int]], Add]) -> None:
        self._adding = adding
        self._found: dict[tuple[tuple[int, ...], Halves | None], Add] = {}

    def of(self, carries: tuple[int, ...], halves: Halves | None) -> Add:
        """Return what adds rows by these carries; halves: see `Section`."""
        kind = carries, halves
        if kind not in self._found:
            self._found[kind] = RoundedSum(carries, halves) if halves else self._adding(carries)
        return self._found[kind]


def _course(bucket: Bucket, rounds: Sequence[Round], adds: _Adds, sums: Array, sections: Sequence[Section]) -> _Course:
    """Lay out the course of a bucket.  sections: of the sums."""
    total, sections = sums[bucket.start : bucket.stop], sections_within(sections, bucket.start, bucket.stop)
    matrices = [aligned_empty((len(one.rows), _width(one.has, total)), sums.dtype) for one in rounds]
    steps = []
    for number, (one, matrix) in enumerate(zip(rounds, matrices, strict=True)):
        if number + 1 < len(rounds):
            targets = [matrices[number + 1][place] for place in rounds[number + 1].mine]
        else:
            targets = [total[slice(*one.keeps.bounds(len(total)))]] if one.keeps else []
        steps.append(_adding(bucket, one, matrix, targets, adds, sections))
    steps += [_returning(bucket, one, total, sections) for one in reversed(rounds) if one.returns]
    return _Course(rows=[matrices[0][place] for place in rounds[0].mine], steps=steps)


def _adding(
    bucket: Bucket, one: Round, matrix: Array, targets: Sequence[Array], adds: _Adds, sections: Sequence[Section]
) -> _Step:
    """Lay out the step in which rows come together.  targets: where their sums go.  sections: of the bucket."""
    size, tag = bucket.stop - bucket.start, 2 * bucket.number
    origin, end = one.has.bounds(size)
    sections_of_matrix = sections_within(sections, origin, end)

    def block(places: Sequence[int], part: Part) -> Block:
        start, stop = part.bounds(size)
        return block_of(matrix, places, start - origin, stop - origin, sections_of_matrix)

    given = {part: block(one.mine, part) for _, part in one.gives}
    sends = [_Message(given[part], bucket.ranks[node], tag) for node, part in one.gives]
    receives, additions = [], []
    if one.keeps:
        receives = [
            _Message(block(places, one.keeps), bucket.ranks[node], tag)
            for node, places in zip(one.takes, one.theirs, strict=True)
        ]
        first, stop = (place - origin for place in one.keeps.bounds(size))
        additions = [
            partial(
                adds.of(carries, section.halves),
                matrix[places.start : places.stop],
                first + section.start,
                target[section.start : section.stop],
            )
            for (places, carries), target in zip(_runs(one.carries), targets, strict=True)
            for section in sections_within(sections_of_matrix, first, stop)
        ]
    return _Step(sends=_not_empty(sends), receives=_not_empty(receives), additions=additions)


def _returning(bucket: Bucket, one: Round, total: Array, sections: Sequence[Section]) -> _Step:
    """Lay out the step in which sums go where rows came from.  sections: of the bucket."""

    def block(part: Part) -> Block:
        return block_of(total[np.newaxis], [0], *part.bounds(len(total)), sections)

    tag = 2 * bucket.number + 1
    sends = []
    if one.keeps:
        kept = block(one.keeps)
        sends = [_Message(kept, bucket.ranks[node], tag) for node in one.takes]
    receives = [_Message(block(part), bucket.ranks[node], tag) for node, part in one.gives]
    return _Step(sends=_not_empty(sends), receives=_not_empty(receives))


def _runs(carries: Sequence[int]) -> Iterator[tuple[range, tuple[int, ...]]]:
    """Cut rows into those that come together into one sum each, with their carries."""
    starts: list[int] = []
    for place, number in enumerate(carries):
        starts.append(place)
        del starts[len(starts) - number :]
    for start, stop in pairwise([*starts, len(carries)]):
        yield range(start, stop), tuple(carries[start:stop])


def _width(part: Part, total: Array) -> int:
    start, stop = part.bounds(len(total))
    return stop - start


def _not_empty(messages: Sequence[_Message]) -> list[_Message]:
    """Leave out the parts of a bucket that has fewer elements than parts."""
    return [message for message in messages if message.block.array.size]

"""How sums over nodes are made: bucket by bucket, in rounds of messages between the nodes.

Who sends what to whom is said by the way of a bucket (`dist_relu.partition.rounds`). What it comes to is a list of
steps for each node: send some arrays, wait until others have come, add; and once a part of the sum is complete, send it
back to where its terms came from. A bucket takes its next step when its messages are there, whatever others do.

Received rows lie beside a node's own in the order of their shards. So additions are those of the summation tree,
whoever was first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import final

import numpy as np
import numpy.typing as npt

from dist_relu.comm.buckets import Bucket
from dist_relu.comm.channel import MAX_TAG, ProgressEngine
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
    adding: (carries): what adds rows so.  sums: the memory of this node where finished sums go.
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
    ) -> None:
        assert all(2 * bucket.number + 1 < MAX_TAG for bucket in mine)
        rounds = {way: way.rounds(tree, held)[node] for way in {bucket.way for bucket in mine}}
        adds: dict[tuple[int, ...], Add] = {}
        for way_rounds in rounds.values():
            for one in way_rounds:
                adds |= {carries: adding(carries) for _, carries in _runs(one.carries) if carries not in adds}
        self._courses = {bucket.number: _course(bucket, rounds[bucket.way], adds, sums) for bucket in mine}
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
            for message in step.sends:
                message.block.pack()
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


@final
class _Block:
    """A block is some columns of some rows of a matrix, as an array that can travel: the matrix itself where it can be.

    array: what travels.
    """

    def __init__(self, matrix: Array, rows: Sequence[int], columns: slice) -> None:
        view = matrix[rows[0] : rows[-1] + 1, columns]
        self._rows = [matrix[row, columns] for row in rows]
        self._is_view = len(view) == len(rows) and view.flags.c_contiguous
        self.array: Array = view if self._is_view else np.empty((len(rows), view.shape[1]), matrix.dtype)

    def pack(self) -> None:
        """Take in what stands in the matrix."""
        if not self._is_view:
            for row, target in zip(self._rows, self.array, strict=True):
                target[:] = row

    def unpack(self) -> None:
        """Bring what has arrived into the matrix."""
        if not self._is_view:
            for row, target in zip(self.array, self._rows, strict=True):
                target[:] = row


@dataclass(frozen=True)
class _Message:
    """A block on its way to a worker, or from there."""

    block: _Block
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


def _course(bucket: Bucket, rounds: Sequence[Round], adds: dict[tuple[int, ...], Add], sums: Array) -> _Course:
    """Lay out the course of a bucket.  adds: by their carries."""
    total = sums[bucket.start : bucket.stop]
    matrices = [aligned_empty((len(one.rows), _width(one.has, total)), sums.dtype) for one in rounds]
    steps = []
    for number, (one, matrix) in enumerate(zip(rounds, matrices, strict=True)):
        if number + 1 < len(rounds):
            targets = [matrices[number + 1][place] for place in rounds[number + 1].mine]
        else:
            targets = [total[slice(*one.keeps.bounds(len(total)))]] if one.keeps else []
        steps.append(_adding(bucket, one, matrix, targets, adds))
    steps += [_returning(bucket, one, total) for one in reversed(rounds) if one.returns]
    return _Course(rows=[matrices[0][place] for place in rounds[0].mine], steps=steps)


def _adding(
    bucket: Bucket, one: Round, matrix: Array, targets: Sequence[Array], adds: dict[tuple[int, ...], Add]
) -> _Step:
    """Lay out the step in which rows come together.  targets: where their sums go."""
    size, tag = bucket.stop - bucket.start, 2 * bucket.number
    origin, _ = one.has.bounds(size)

    def message(places: Sequence[int], part: Part, node: int) -> _Message:
        start, stop = part.bounds(size)
        return _Message(_Block(matrix, places, slice(start - origin, stop - origin)), bucket.ranks[node], tag)

    sends = [message(one.mine, part, node) for node, part in one.gives]
    receives, additions = [], []
    if one.keeps:
        receives = [message(places, one.keeps, node) for node, places in zip(one.takes, one.theirs, strict=True)]
        first = one.keeps.bounds(size)[0] - origin
        additions = [
            partial(adds[carries], matrix[places.start : places.stop], first, target)
            for (places, carries), target in zip(_runs(one.carries), targets, strict=True)
        ]
    return _Step(sends=_not_empty(sends), receives=_not_empty(receives), additions=additions)


def _returning(bucket: Bucket, one: Round, total: Array) -> _Step:
    """Lay out the step in which sums go where rows came from."""

    def message(part: Part, node: int) -> _Message:
        block = _Block(total[np.newaxis], [0], slice(*part.bounds(len(total))))
        return _Message(block, bucket.ranks[node], 2 * bucket.number + 1)

    sends = [message(one.keeps, node) for node in one.takes] if one.keeps else []
    receives = [message(part, node) for node, part in one.gives]
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

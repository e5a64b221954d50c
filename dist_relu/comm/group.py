"""Collective operations on NumPy arrays, for processes of several nodes that do nothing else together.

Arrays of one node are combined in shared memory, those of several nodes are exchanged by buckets, always along the
summation tree: the result does not depend on who came first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, final

import numpy as np

from dist_relu.comm.barrier import NodeBarrier, TaskAborted
from dist_relu.comm.buckets import assign_buckets, choose_cutting
from dist_relu.comm.channel import MAX_TAG, ProgressEngine
from dist_relu.comm.exchange import Add, Exchange
from dist_relu.comm.shared_memory import Handle, SharedArray, attach
from dist_relu.comm.tcp import TcpChannel
from dist_relu.comm.world_barrier import WorldBarrier
from dist_relu.core.arrays import Array
from dist_relu.errors import WorkerLost
from dist_relu.partition import Fold, SummationTree, TreeNode, bounds

Operation = Callable[[Array, Array], Array]
"""Combines two arrays element by element, for instance `np.add`."""

_LINE_BYTES = 64
_POINT_TO_POINT, _TO_ALL, _MEMORY = MAX_TAG - 1, MAX_TAG - 2, MAX_TAG - 3


@final
class Group:
    """A group is one process's part in operations of several.

    Every method is collective, but for `send` and `receive`, and works on arrays of any layout.
    rank: of this process; ranks stand in the order of the nodes.  nodes: the ranks of each.  leaves: the leaf of each
    rank in the summation tree, ascending in every node.  pids: of this node's processes.  control: shared by this node,
    see `NodeBarrier`.  channel: to all other ranks.
    When a process fails or dies, all others raise WorkerLost in their next operation, if not in this one.
    """

    def __init__(
        self,
        rank: int,
        nodes: Sequence[range],
        leaves: Sequence[int],
        pids: Sequence[int],
        control: Array,
        channel: TcpChannel,
    ) -> None:
        self.rank = rank
        self.size = nodes[-1].stop
        self._nodes = nodes
        self._leaves = leaves
        (self._node,) = (number for number, ranks in enumerate(nodes) if rank in ranks)
        self._ranks = ranks = nodes[self._node]
        self._channel = channel
        self._pids = pids
        self._barrier = NodeBarrier(control, rank - ranks.start, pids)
        self._barrier.begin(1)
        self._progress_engine = ProgressEngine(channel, self._barrier)
        self._progress_engine.begin(1)
        self._leaders = [other.start for other in nodes if other is not ranks]
        self._world_barrier = WorldBarrier(
            self._barrier, self._progress_engine, leader=rank == ranks.start, others=self._leaders
        )
        self._shared: SharedArray | None = None
        self._memory: Array = np.empty(0, np.uint8)
        self._reductions: dict[tuple[int, np.dtype[Any], Operation], _Reduction] = {}
        self._is_broken = False

    def barrier(self) -> None:
        """Wait for everybody."""
        with self._together():
            self._world_barrier.wait()

    def all_reduce(self, array: Array, operation: Operation, *, root: int | None = None) -> None:
        """Combine everybody's `array` into everybody's, or into that of `root` alone."""
        with self._together():
            total = self._reduced(array.reshape(-1), operation)
            if root in (None, self.rank):
                array[...] = total.reshape(array.shape)

    def reduce_scatter(self, array: Array, parts: Sequence[Array], operation: Operation) -> None:
        """Combine everybody's `parts`, one for each rank, and let this rank's go into `array`."""
        with self._together():
            total = self._reduced(np.concatenate([part.reshape(-1) for part in parts]), operation)
            array[...] = total.reshape(len(parts), -1)[self.rank].reshape(array.shape)

    def broadcast(self, array: Array, root: int) -> None:
        """Let everybody's `array` be that of `root`."""
        with self._together():
            (shared,) = self._rows(1, array)
            if self.rank == root:
                shared[:] = array.reshape(-1)
                self._wait_for([], [(shared, leader) for leader in self._leaders])
            elif self.rank == self._ranks.start and root not in self._ranks:
                self._wait_for([(shared, root)], [])
            self._barrier.wait()
            array[...] = shared.reshape(array.shape)

    def all_gather(self, arrays: Sequence[Array], array: Array) -> None:
        """Let the `array` of rank r go into everybody's `arrays[r]`."""
        with self._together():
            rows = self._rows(self.size, array)
            rows[self.rank] = array.reshape(-1)
            others = [rank for rank in range(self.size) if rank not in self._ranks]
            arriving = [(rows[rank], rank) for rank in others] if self.rank == self._ranks.start else []
            self._wait_for(arriving, [(rows[self.rank], leader) for leader in self._leaders])
            self._barrier.wait()
            for target, row in zip(arrays, rows, strict=True):
                target[...] = row.reshape(target.shape)

    def send(self, array: Array, rank: int) -> None:
        """Send `array` to a rank that receives one of the same size."""
        with self._together():
            self._wait_for([], [(np.ascontiguousarray(array), rank)], _POINT_TO_POINT)

    def receive(self, array: Array, rank: int) -> None:
        """Receive an array of the same size from `rank`."""
        with self._together():
            content = np.empty(array.shape, array.dtype)
            self._wait_for([(content, rank)], [], _POINT_TO_POINT)
            array[...] = content

    def close(self) -> None:
        """Leave the group.  May be called twice."""
        self._progress_engine.close()
        self._channel.close()
        self._barrier.close()

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Let an operation that fails here fail everywhere."""
        if self._is_broken:
            raise WorkerLost("This group has lost a worker. Make another one.")
        try:
            yield
        except BaseException as error:
            self._is_broken = True
            self._barrier.abort()
            with self._progress_engine.lock:
                self._channel.close()
            if isinstance(error, TaskAborted):
                raise WorkerLost("Another worker of this group has failed or died. Make another group.") from None
            raise

    def _reduced(self, array: Array, operation: Operation) -> Array:
        """Combine everybody's `array` in shared memory; the result stays there until the next operation."""
        rows = self._rows(len(self._ranks) + 1, array)
        rows[self.rank - self._ranks.start] = array
        key = array.size, array.dtype, operation
        if key not in self._reductions:
            self._reductions[key] = _Reduction(
                self.rank, self._node, self._nodes, self._leaves, self._progress_engine, self._barrier, rows, operation
            )
        self._reductions[key]()
        total: Array = rows[-1]
        return total

    def _rows(self, number: int, array: Array) -> Array:
        """Return rows of shared memory as long as `array`, when nobody needs any more what was in them."""
        stride = -(-max(array.nbytes, 1) // _LINE_BYTES) * _LINE_BYTES
        if number * stride > self._memory.size:
            self._grow(number * stride)
        self._barrier.wait()
        rows: Array = self._memory[: number * stride].reshape(number, stride)[:, : array.nbytes].view(array.dtype)
        return rows

    def _grow(self, size_bytes: int) -> None:
        """Get more shared memory, from the first rank of this node."""
        size_bytes = 1 << (size_bytes - 1).bit_length()
        self._reductions.clear()
        first, *peers = self._ranks
        if self.rank == first:
            self._shared = SharedArray((size_bytes,), np.uint8)
            self._memory = self._shared.array
            handle = self._shared.handle
            note = np.array([handle.descriptor, handle.inode])
            self._wait_for([], [(note, peer) for peer in peers], _MEMORY)
        else:
            note = np.empty(2, np.int64)
            self._wait_for([(note, first)], [], _MEMORY)
            descriptor, inode = map(int, note)
            self._memory = attach(Handle(self._pids[0], descriptor, inode, (size_bytes,), np.dtype(np.uint8)))

    def _wait_for(
        self, arriving: Sequence[tuple[Array, int]], leaving: Sequence[tuple[Array, int]], tag: int = _TO_ALL
    ) -> None:
        """Receive and send arrays, and wait until they are done."""
        missing = [len(arriving) + len(leaving)]

        def on_done() -> None:
            missing[0] -= 1

        for array, rank in arriving:
            self._progress_engine.receive(array, rank, tag, on_done)
        for array, rank in leaving:
            self._progress_engine.send(array, rank, tag, on_done)
        self._progress_engine.wait_until(lambda: not missing[0])


@final
class _Reduction:
    """Combines arrays of one size.  rows: (ranks of this node + 1, n), shared; the last is for the result."""

    def __init__(
        self,
        rank: int,
        node: int,
        nodes: Sequence[range],
        leaves: Sequence[int],
        progress_engine: ProgressEngine,
        barrier: NodeBarrier,
        rows: Array,
        operation: Operation,
    ) -> None:
        tree = SummationTree(nodes[-1].stop)
        held = [[TreeNode(0, leaves[other]) for other in ranks] for ranks in nodes]
        subtrees = [tree.fold(nodes_of_tree)[1] for nodes_of_tree in held]  # that a node can combine alone
        cutting = choose_cutting(rows[0].nbytes, tree, subtrees)
        cuts = bounds(rows.shape[1], cutting.num_buckets)
        buckets = assign_buckets(cuts, [stop - start for start, stop in cuts], nodes, cutting.ways)
        self._mine = [bucket for bucket in buckets if rank in bucket.ranks]

        def adding(carries: Sequence[int]) -> Add:
            return lambda rows, first, total: combine(operation, carries, rows[:, first : first + len(total)], total)

        self._exchange = Exchange(progress_engine, node, self._mine, tree, subtrees, adding, rows[-1])
        self._terms = []
        for subtree in subtrees[node]:
            together = tree.shards_of(subtree)
            carries, _ = tree.fold(tree.leaves(together.start, together.stop))
            first = held[node].index(TreeNode(0, together.start))
            self._terms.append((rows[first : first + len(together)], carries))
        self._operation = operation
        self._barrier = barrier

    def __call__(self) -> None:
        """Combine the rows of all ranks, which were written before, into the last.  Collective."""
        self._exchange.begin()
        self._barrier.wait()
        for bucket in self._mine:
            for (rows, carries), target in zip(self._terms, self._exchange.rows(bucket), strict=True):
                combine(self._operation, carries, rows[:, bucket.start : bucket.stop], target)
            self._exchange.leave(bucket)
        self._exchange.wait()
        self._barrier.wait()


def combine(operation: Operation, carries: Sequence[int], rows: Iterable[Array], total: Array) -> None:
    """Combine all `rows` into `total`, two by two along the summation tree."""
    fold = Fold(carries, operation)
    for row in rows:
        fold.push(row)
        fold.carry()
    (total[:],) = fold.sums()

"""What a function that runs on the workers sees of them: its `World`, and its `Node` in it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from dist_relu.comm.barrier import Barrier, NodeBarrier
from dist_relu.comm.channel import ProgressEngine
from dist_relu.comm.shared_memory import Handles, SharedArray, attach
from dist_relu.comm.whereabouts import Whereabouts
from dist_relu.core.arrays import Array


@dataclass(frozen=True, kw_only=True)
class Node:
    """A worker's view of the node that it runs on.

    number: of this node, from 0.  ranks: of its workers, one after the other.  rank: the place of this worker among
    them, 0 for the first.
    barrier: waits for the workers of this node alone.
    whereabouts: notes where this worker is, for whoever waits for it.
    held: memory that this worker keeps for its node, by key; see `dist_relu.runtime.replicated`.
    """

    number: int
    ranks: range
    rank: int
    barrier: NodeBarrier
    whereabouts: Whereabouts
    held: dict[int, SharedArray]

    def attach(self, handles: Handles) -> Array:
        """Map this node's copy of an array that every node has; all workers of the node see what one of them writes."""
        return attach(handles[self.number])


@dataclass(frozen=True, kw_only=True)
class World:
    """A worker's view of all workers: the first argument of every function that `Coordinator.run` runs.

        def sum_of_squares(world, numbers):
            return sum(number**2 for number in numbers[world.rank :: world.size])

        parts = coordinator.run(sum_of_squares, range(1000))

    rank: the number of this worker, from 0; workers of a node have ranks that follow one another.
    size: the number of workers.
    barrier: `barrier.wait()` returns when all workers have called it as often as this one. It raises when another
    worker failed, died, or was told to stop; let that go through.
    report: `report(event)` hands any object that can be pickled to the `on_event` of `Coordinator.run`, in order. In
    an MPI job only what worker 0 reports arrives.
    node: the one that this worker runs on.
    nodes: the ranks of each node.
    kept: what functions keep in this worker between calls, by keys of their own.
    progress_engine: sends arrays to workers of other nodes; None when all workers run on one.
    """

    rank: int
    size: int
    barrier: Barrier
    report: Callable[[Any], None]
    node: Node
    nodes: Sequence[range]
    kept: dict[Hashable, Any]
    progress_engine: ProgressEngine | None

"""How the workers of all nodes wait for one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from dist_relu.comm.barrier import Barrier, NodeBarrier
from dist_relu.comm.channel import MAX_TAG, ProgressEngine

_TAG = MAX_TAG


@final
class WorldBarrier(Barrier):
    """A barrier over all nodes: the workers of a node wait, then the first ones of all nodes, then the node again.

    leader: whether this worker is the first of its node.  others: the first workers of the other nodes.
    """

    def __init__(
        self, barrier: NodeBarrier, progress_engine: ProgressEngine, *, leader: bool, others: Sequence[int]
    ) -> None:
        self._barrier = barrier
        self._progress_engine = progress_engine
        self._others = others if leader else []
        self._here = np.zeros(1, np.uint8)
        self._there = np.zeros(len(others), np.uint8)
        self._under_way = 0

    def wait(self) -> None:
        self._barrier.wait()
        if self._others:
            with self._progress_engine.lock:
                self._under_way = 2 * len(self._others)
                for i, rank in enumerate(self._others):
                    self._progress_engine.receive(self._there[i : i + 1], rank, _TAG, self._done)
                    self._progress_engine.send(self._here, rank, _TAG, self._done)
            self._progress_engine.wait_until(lambda: not self._under_way)
        self._barrier.wait()

    def check(self) -> None:
        self._barrier.check()

    def _done(self) -> None:
        self._under_way -= 1

"""How the workers of all nodes wait for one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from dist_relu.comm.barrier import Barrier, Meeting
from dist_relu.comm.channel import MAX_TAG, Courier

_TAG = MAX_TAG


@final
class WorldBarrier(Meeting):
    """A barrier over all nodes: the workers of a node meet, then the first ones of all nodes, then the node again.

    leader: whether this worker is the first of its node.  others: the first workers of the other nodes.
    """

    def __init__(self, barrier: Barrier, courier: Courier, *, leader: bool, others: Sequence[int]) -> None:
        self._barrier = barrier
        self._courier = courier
        self._others = others if leader else []
        self._here = np.zeros(1, np.uint8)
        self._there = np.zeros(len(others), np.uint8)
        self._under_way = 0

    def wait(self) -> None:
        self._barrier.wait()
        if self._others:
            with self._courier.lock:
                self._under_way = 2 * len(self._others)
                for i, rank in enumerate(self._others):
                    self._courier.receive(self._there[i : i + 1], rank, _TAG, self._through)
                    self._courier.send(self._here, rank, _TAG, self._through)
            self._courier.wait_until(lambda: not self._under_way)
        self._barrier.wait()

    def check(self) -> None:
        self._barrier.check()

    def _through(self) -> None:
        self._under_way -= 1

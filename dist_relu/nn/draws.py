"""What the layers of a pass draw."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.kernels import philox
from dist_relu.kernels.tape import spoil
from dist_relu.partition import Purpose, generator


@final
class Draws:
    """Random numbers for layers: a stream for each call, fixed by seed, batch, shard and number of the call.

    clock: (1,) int64, the number of the batch.
    """

    def __init__(self, seed: int, clock: Array | None = None) -> None:
        self.clock = np.zeros(1, np.int64) if clock is None else clock
        self._seed, self._key = seed, np.array([seed, Purpose.LAYERS], np.uint64)
        self._shard = self._number = 0

    def begin(self, batch: int, shard: int) -> None:
        """Begin with a pass."""
        self.clock[0] = batch
        self._shard, self._number = shard, 0

    def bookmark(self) -> Callable[[], object]:
        """See `Pass.bookmark`."""
        shard, number = self._shard, self._number

        def go_back() -> None:
            self._shard, self._number = shard, number

        return go_back

    def generator(self) -> np.random.Generator:
        """See `Pass.generator`."""
        spoil()  # whatever is drawn from it is drawn by Python
        self._number += 1
        return generator(self._seed, Purpose.LAYERS, int(self.clock[0]), self._shard, self._number)

    def random_bits(self, out: Array) -> None:
        """See `Pass.random_bits`."""
        self._number += 1
        philox.random_bits(self._key, self.clock, self._shard, self._number, out.reshape(-1))

    def uniform(self, out: Array) -> None:
        """See `Pass.uniform`."""
        self._number += 1
        philox.uniform(self._key, self.clock, self._shard, self._number, out.reshape(-1))

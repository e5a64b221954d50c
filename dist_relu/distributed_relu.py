"""ReLU alone, on arrays in parts that workers share out."""

from __future__ import annotations

from types import TracebackType
from typing import Self, final

import numpy.typing as npt

from dist_relu.coordinator import Coordinator, start
from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_int, instance_of, optional


@final
class DistributedReLU:
    """ReLU on arrays cut into `num_partitions` parts, which workers share out.

    coordinator: whose workers compute; by default workers are started as `dist_relu.start()` does, and closed with this
    object.
    """

    def __init__(self, num_partitions: int, coordinator: Coordinator | None = None) -> None:
        self._num_partitions = check_int("num_partitions", num_partitions)
        optional(instance_of(Coordinator))("coordinator", coordinator)
        self._is_own = coordinator is None
        self._coordinator = start() if coordinator is None else coordinator

    def parallel_relu(self, x: npt.ArrayLike) -> Array:
        """max(x, 0) of an array of any shape."""
        return self._coordinator.relu(x, partitions=self._num_partitions)

    def parallel_backward(self, dy: npt.ArrayLike, x: npt.ArrayLike) -> Array:
        """dy where x > 0 or NaN, else 0; dy and x of the same shape."""
        return self._coordinator.relu_backward(dy, x, partitions=self._num_partitions)

    def close(self) -> None:
        """End the workers, if they were started for this object."""
        if self._is_own:
            self._coordinator.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

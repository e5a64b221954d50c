"""Samples where the workers are: in memory of the nodes, or in files that every worker reads itself.

What these workers can't read, such as blocks of Ray on another backend, the coordinator reads into memory.

In memory they have the dtype of the model, or a narrower one of integers, such as bytes of images, and become the
model's numbers on their way into a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from dist_relu.comm.shared_memory import Handles
from dist_relu.core.arrays import Array
from dist_relu.data.rows import Rows
from dist_relu.runtime.replicated import ReplicatedArray, ReplicatedArrays
from dist_relu.runtime.world import Node


@final
class Samples:
    """Samples look like an array (N, ...) of a model's dtype, of which blocks of rows are read.

    rows: which they are.  dtype: the model's.  array: they themselves, where they lie in memory as it wants them.
    """

    def __init__(self, rows: Rows, dtype: np.dtype[Any]) -> None:
        self.rows, self.shape, self.dtype = rows, rows.shape, dtype
        self.array = None if rows.array is None or rows.array.dtype != dtype else rows.array

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, block: slice) -> Array:
        if self.array is not None:
            rows: Array = self.array[block]
            return rows
        numbers = np.arange(len(self))[block]
        rows = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        self.rows.read(numbers, rows)
        return rows


@final
@dataclass(frozen=True, kw_only=True)
class SamplesHandle:
    """A handle says where workers find samples: in memory of the nodes (`handles`), or in files (`rows`)."""

    dtype: np.dtype[Any]
    handles: Handles | None = None
    scale: float | None = None
    rows: Rows | None = None

    def attach(self, node: Node) -> Samples:
        """Return the samples, for a worker on this node."""
        if self.rows is not None:
            return Samples(self.rows, self.dtype)
        assert self.handles is not None
        return Samples(Rows(node.attach(self.handles), scale=self.scale), self.dtype)


@final
class PlacedSamples:
    """Placed samples are the coordinator's: what is in its memory goes to the nodes when they want it.

    memory: where they lie on the nodes, (N, ...); None where every worker reads them itself.
    """

    def __init__(self, handle: SamplesHandle, shape: tuple[int, ...], memory: ReplicatedArray | None = None) -> None:
        self.handle, self.shape, self.memory = handle, shape, memory

    @classmethod
    def of(cls, rows: Rows, dtype: np.dtype[Any], replicas: ReplicatedArrays) -> PlacedSamples:
        """Place rows for a model of this dtype.  Raises `DataError` for what can't be read."""
        if not isinstance(rows.storage, np.ndarray):
            if rows.storage.backend in (None, replicas.backend):
                return cls(SamplesHandle(dtype=dtype, rows=rows), rows.shape)
            rows = Rows(np.asarray(rows, dtype if rows.dtype.kind == "f" else rows.dtype))
        stored = rows.storage
        assert isinstance(stored, np.ndarray)
        if stored.dtype == np.bool_:
            stored = stored.view(np.uint8)
        stays = rows.scale is not None or (stored.dtype.kind in "iu" and stored.itemsize < dtype.itemsize)
        memory = replicas.of(stored, stored.dtype if stays else dtype)
        return cls.in_memory(memory, dtype, rows.scale)

    @classmethod
    def in_memory(cls, memory: ReplicatedArray, dtype: np.dtype[Any], scale: float | None = None) -> PlacedSamples:
        """Samples that lie in an array on all nodes."""
        handle = SamplesHandle(dtype=dtype, handles=memory.handles, scale=scale)
        return cls(handle, memory.array.shape, memory)

    def __len__(self) -> int:
        return self.shape[0]

    def broadcast(self, rows: Mapping[int, range] | None = None) -> None:
        """Bring rows to the nodes that want them, see `ReplicatedArray.broadcast`."""
        if self.memory is not None:
            self.memory.broadcast(rows)

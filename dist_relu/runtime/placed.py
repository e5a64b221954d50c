"""Data sets where the workers are."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.data import Dataset
from dist_relu.errors import DataError
from dist_relu.runtime.placed_samples import PlacedSamples
from dist_relu.runtime.replicated import ReplicatedArray, ReplicatedArrays


@dataclass(frozen=True)
class PlacedDataset:
    """A placed data set is on every node, for a model; the nodes get its rows when they want them."""

    x: PlacedSamples
    y: ReplicatedArray


@final
class PlacedDatasets:
    """Keeps data sets where they were placed as long as the user has them."""

    def __init__(self) -> None:
        self._placed: weakref.WeakKeyDictionary[Dataset, PlacedDataset] = weakref.WeakKeyDictionary()
        self._replicas: ReplicatedArrays | None = None

    def place(self, data: Dataset, dtype: np.dtype[Any], replicas: ReplicatedArrays) -> PlacedDataset:
        """Place `data` for a model of this dtype.  Raises DataError when it does not fit into the dtype."""
        if replicas is not self._replicas:  # the workers have become others
            self._placed.clear()
            self._replicas = replicas
        placed = self._placed.get(data)
        if placed is None or placed.x.handle.dtype != dtype:
            y_dtype = np.dtype(np.int64) if data.has_classes else dtype
            with np.errstate(over="ignore"):
                samples = PlacedSamples.of(data.rows, dtype, replicas)
                placed = PlacedDataset(samples, replicas.copy_of(data.y, y_dtype))
            if isinstance(data.rows.storage, np.ndarray) and data.rows.scale is None:
                assert samples.memory is not None
                _check_finite("x", data.rows.storage, samples.memory.array)
            _check_finite("y", data.y, placed.y.array)
            self._placed[data] = placed
        return placed


def _check_finite(name: str, source: Array, copy: Array) -> None:
    """Raise DataError unless `source`, which is finite, is finite still in a narrower type."""
    if source.dtype.kind != "f" or source.dtype.itemsize <= copy.itemsize:
        return
    finite = np.isfinite(copy)
    if not finite.all():
        where = tuple(map(int, np.unravel_index(int(np.argmin(finite)), source.shape)))
        raise DataError(
            f"{name}[{', '.join(map(str, where))}] is {source[where]}, too large for {copy.dtype}. "
            "Scale the data, or build the model with dtype float64."
        )

"""Sparse samples in memory, of which only those of a batch become an array."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.data.rows import Storage


@final
@dataclass(frozen=True, eq=False)
class SparseRows(Storage):
    """Rows (N, features) of which only what is not 0 is kept, row after row (compressed sparse rows).

    values, columns: of row i those from starts[i] to starts[i + 1].  starts: (N + 1,).
    """

    values: Array
    columns: Array
    starts: Array
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, matrix: Any) -> Self:
        """A `scipy.sparse` matrix or array of the format "csr", which must not change."""
        if not matrix.has_canonical_format:  # some elements may stand there twice, to be added
            matrix = matrix.copy()
            matrix.sum_duplicates()
        return cls(matrix.data, matrix.indices, matrix.indptr, matrix.shape, matrix.dtype)

    def memory(self) -> Array | None:
        return None

    def bring(self, numbers: Array) -> bool:
        return True

    def read(self, numbers: Array) -> Array:
        first, counts = self.starts[numbers], self.starts[numbers + 1] - self.starts[numbers]
        before = np.cumsum(counts) - counts
        places = np.repeat(first - before, counts) + np.arange(counts.sum())
        rows = np.zeros((len(numbers), *self.shape[1:]), self.dtype)
        rows[np.repeat(np.arange(len(numbers)), counts), self.columns[places]] = self.values[places]
        return rows

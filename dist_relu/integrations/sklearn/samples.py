"""Samples that scikit-learn has validated, on their way to a `Dataset`.  N samples."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import issparse
from sklearn.model_selection import train_test_split

from dist_relu.core.arrays import Array
from dist_relu.data import Dataset
from dist_relu.data.rows import Rows
from dist_relu.data.sparse import SparseRows


class Samples(NamedTuple):
    """Samples that were validated, and the targets of a `Dataset`.

    x: an array, or a sparse matrix (N, features) of compressed rows.  weights: (N,), or None.
    """

    x: Any
    targets: Array
    weights: Array | None

    def dataset(self) -> Dataset:
        return Dataset(rows_of(self.x), self.targets, weights=self.weights)

    def split(self, fraction: float, random: np.random.RandomState, strata: Array | None) -> tuple[Samples, Samples]:
        """Cut them into those to train on and those to judge by, `fraction` of them.

        strata: (N,), of what both have the same shares.  Raises ValueError where those to judge by are too few.
        """
        arrays = [array for array in self if array is not None]
        parts = train_test_split(*arrays, random_state=random, test_size=fraction, stratify=strata)
        if parts[1].shape[0] < 2:
            raise ValueError(
                f"validation_fraction={fraction} of {len(self.targets)} samples are too few to judge by: pass a larger "
                "one, or more samples."
            )
        train, held_back = parts[::2], parts[1::2]
        return Samples(*train, *[None] * (3 - len(train))), Samples(*held_back, *[None] * (3 - len(train)))


def rows_of(x: Any) -> Array | Rows:
    """Samples as a `Dataset` takes them: sparse ones stay so until a batch needs them."""
    return Rows(SparseRows.of(x)) if issparse(x) else x

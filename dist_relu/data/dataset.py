"""Samples and targets, checked once when they are put together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np

from dist_relu.arrays import Array
from dist_relu.errors import DataError


@final
@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples x (N, ...) and their targets y: class numbers (N,) of an integer type, or real values (N, ...).

    A data set is not changed once it is made: workers may hold copies of it. image_shape: (height, width, channels)
    when the samples are flattened images. Raises `DataError` for arrays that can't be trained on.
    """

    x: Array
    y: Array
    image_shape: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "x", _checked("x", self.x))
        object.__setattr__(self, "y", _checked("y", self.y))
        if self.x.ndim < 2:
            raise DataError(f"x has shape {self.x.shape}; expected samples along the first axis: (N, features).")
        if len(self.x) != len(self.y):
            raise DataError(
                f"x has {len(self.x)} samples, but y has {len(self.y)}; expected as many targets as samples."
            )
        if not len(self.x) or not self.x.size:
            raise DataError(f"The data set is empty: x has shape {self.x.shape}.")

    def __len__(self) -> int:
        return len(self.x)

    @property
    def has_classes(self) -> bool:
        """Whether the targets are class numbers."""
        return self.y.ndim == 1 and np.issubdtype(self.y.dtype, np.integer)

    def num_outputs(self) -> int:
        """How many outputs a model for these targets needs: the number of classes or of real values."""
        return int(self.y.max()) + 1 if self.has_classes else int(np.prod(self.y.shape[1:]))


class Split(NamedTuple):
    """A data set to train on, and one of unseen samples."""

    train: Dataset
    test: Dataset


def _checked(name: str, value: Array) -> Array:
    array = np.asarray(value)
    if array.dtype == np.float16:
        raise DataError(
            f"{name} is float16, which loses too much; expected float32 or float64: {name}.astype('float32')."
        )
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise DataError(f"{name} has dtype {array.dtype}; expected float32, float64 or integers.")
    if array.dtype.kind == "f":
        finite = np.isfinite(array)
        if not finite.all():
            where = tuple(map(int, np.unravel_index(int(np.argmin(finite)), array.shape)))
            raise DataError(
                f"{name}[{', '.join(map(str, where))}] is {array[where]}; expected finite numbers. "
                f"{array.size - np.count_nonzero(finite)} of {array.size} values are NaN or infinite."
            )
    return array

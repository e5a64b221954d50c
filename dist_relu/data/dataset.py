"""Samples and targets, checked once when they are put together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np

from dist_relu.arrays import Array
from dist_relu.errors import DataError

_MAX_CLASSES = 1_000_000


@final
@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples x (N, ...) and their targets y: class numbers (N,) of an integer type, or real values (N, ...).

    Integers of shape (N, 1) become (N,), and real targets of shape (N,) become (N, 1), the shape of a model's single
    output. A data set is not changed once it is made: workers may hold copies of it. image_shape: (height, width,
    channels) when the samples are flattened images. Raises `DataError` for arrays that can't be trained on.
    """

    x: Array
    y: Array
    image_shape: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "x", _checked("x", self.x))
        object.__setattr__(self, "y", _checked("y", self.y))
        if self.x.ndim < 2:
            raise DataError(f"x has shape {self.x.shape}; expected samples along the first axis: (N, features).")
        if not self.y.ndim:
            raise DataError("y is a single number; expected a target for every sample.")
        if self.y.ndim == 1 and self.y.dtype.kind == "f":
            object.__setattr__(self, "y", self.y.reshape(-1, 1))
        if self.y.shape[1:] == (1,) and self.y.dtype.kind in "iub":
            object.__setattr__(self, "y", self.y.reshape(-1))
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
        return self.y.ndim == 1 and self.y.dtype.kind in "iub"

    def num_outputs(self) -> int:
        """How many outputs a model for these targets needs: the number of classes or of real values."""
        if not self.has_classes:
            return int(np.prod(self.y.shape[1:]))
        largest = int(self.y.max())
        if largest >= _MAX_CLASSES:
            raise DataError(
                f"Label {largest} of sample {int(np.argmax(self.y))} is no class number: they count from 0 and stay "
                f"below {_MAX_CLASSES}. Real targets are of a floating-point type."
            )
        return largest + 1


class Split(NamedTuple):
    """A data set to train on, and one of unseen samples of the same kind."""

    train: Dataset
    test: Dataset

    def num_outputs(self) -> int:
        """How many outputs a model for both parts needs."""
        return max(self.train.num_outputs(), self.test.num_outputs())


def split(train: Dataset, test: Dataset) -> Split:
    """Both parts together.  Raises `DataError` when one model can't serve both."""
    if train.x.shape[1:] != test.x.shape[1:]:
        raise DataError(
            f"Samples to train on have shape {train.x.shape[1:]}, but those to test with {test.x.shape[1:]}; "
            "expected the same."
        )
    if train.has_classes != test.has_classes or train.y.shape[1:] != test.y.shape[1:]:
        raise DataError(
            f"Targets to train on are {train.y.dtype} of shape {train.y.shape}, but those to test with {test.y.dtype} "
            f"of shape {test.y.shape}; expected the same kind."
        )
    return Split(train, test)


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

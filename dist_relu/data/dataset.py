"""Samples and targets, checked once when they are put together."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, cast, final

import numpy as np
import numpy.typing as npt

from dist_relu.core.array_checks import check_finite, check_numbers
from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_fields, check_ints, instance_of, optional
from dist_relu.data.labels import (
    MAX_CLASSES,
    are_text,
    check_classes,
    class_numbers,
    listed,
    reads_as_number,
    renumbered,
)
from dist_relu.data.rows import Rows
from dist_relu.errors import DataError, DataWarning

_FEW = 20
_INT64_MAX = np.iinfo(np.int64).max


@final
@dataclass(frozen=True, eq=False, init=False)
class Dataset:
    """Samples x (N, ...) and their targets y: class numbers (N,) of an integer type, or real values (N, ...).

    x is an array, or `Rows` of a file or of bytes, which stay where they are until a batch needs them.

    y may also be text, the names of classes: these get numbers in the order of their names, or, where `classes` gives
    the names, in that order. classes: the name of each class number, which reports and predictions then have.

    Integers of shape (N, 1) become (N,), and real targets of shape (N,) become (N, 1), the shape of a model's single
    output. A data set is not changed once it is made: workers may hold copies of it, or read it where it lies.
    image_shape: (height, width, channels) when the samples are flattened images.
    weights: (N,), how much each sample counts in a loss, at least 0, or how often it is drawn; a sample of weight 2
    counts as one that is there twice, and only how weights compare matters. None: all count alike.
    Raises `DataError` for arrays that can't be trained on.
    """

    rows: Rows
    y: Array
    image_shape: tuple[int, int, int] | None
    classes: tuple[str, ...] | None
    weights: Array | None

    def __init__(
        self,
        x: npt.ArrayLike | Rows,
        y: npt.ArrayLike,
        image_shape: tuple[int, int, int] | None = None,
        classes: Sequence[str] | None = None,
        weights: npt.ArrayLike | None = None,
    ) -> None:
        object.__setattr__(self, "rows", checked_rows(x))
        object.__setattr__(self, "y", y)
        object.__setattr__(self, "image_shape", image_shape)
        object.__setattr__(self, "classes", classes)
        object.__setattr__(self, "weights", weights)
        if self.classes is not None:
            object.__setattr__(self, "classes", check_classes(self.classes))
        if are_text(self.y):
            self._number_classes()
        object.__setattr__(self, "y", check_numbers("y", self.y))
        check_finite("y", self.y)
        if not self.y.ndim:
            raise DataError("y is a single number; expected a target for every sample.")
        if self.y.ndim == 1 and self.y.dtype.kind == "f":
            object.__setattr__(self, "y", self.y.reshape(-1, 1))
        if self.y.shape[1:] == (1,) and self.y.dtype.kind in "iub":
            object.__setattr__(self, "y", self.y.reshape(-1))
        if self.has_classes and self.y.size and self.y.max() > _INT64_MAX:
            raise DataError(f"y[{int(np.argmax(self.y))}] is {self.y.max()}, which is no class number.")
        if self.classes is not None:
            _check_numbers_of(self.classes, self.y, has_classes=self.has_classes)
        if len(self.rows) != len(self.y):
            raise DataError(
                f"x has {len(self.rows)} samples, but y has {len(self.y)}; expected as many targets as samples."
            )
        if self.weights is not None:
            object.__setattr__(self, "weights", _checked_weights(self.weights, len(self.rows)))
        if self.image_shape is not None:
            shape = check_ints("Dataset(image_shape)", self.image_shape)
            if len(shape) != 3 or prod(shape) != prod(self.sample_shape):
                raise DataError(
                    f"image_shape={shape} is not that of samples of shape {self.sample_shape}; expected (height, "
                    f"width, channels) with {prod(self.sample_shape)} elements."
                )
            object.__setattr__(self, "image_shape", shape)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        targets = f"targets of shape {self.y.shape[1:]}"
        if self.has_classes:
            targets = f"{int(self.y.max()) + 1} classes" if self.classes is None else f"classes {listed(self.classes)}"
        return f"Dataset({len(self):,} samples of shape {self.sample_shape}, {self.rows.dtype}, {targets})"

    @cached_property
    def x(self) -> Array:
        """The samples as an array of numbers; those of files as what looks like one, `data.x[:10]` reads some."""
        if isinstance(self.rows.storage, np.ndarray):
            return np.asarray(self.rows)
        return cast("Array", self.rows)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of a sample."""
        return self.rows.shape[1:]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "x"}

    @property
    def has_classes(self) -> bool:
        """Whether the targets are class numbers."""
        return self.y.ndim == 1 and self.y.dtype.kind in "iub"

    def num_outputs(self) -> int:
        """How many outputs a model for these targets needs: the number of classes or of real values."""
        return _num_outputs(self)

    def of_rows(self, rows: Array) -> Dataset:
        """Some of its samples, all else as it is.  rows: their numbers, or for every sample whether it is one."""
        weights = None if self.weights is None else self.weights[rows]
        x = self.rows.take(np.arange(len(self))[rows])
        return Dataset(x, self.y[rows], self.image_shape, self.classes, weights)

    def in_classes(self, classes: tuple[str, ...] | None) -> Dataset:
        """The same samples with the numbers that their classes have among `classes`, such as those of a model.

        The data set itself where it has no names, or the same ones, or `classes` is None. Raises `DataError` for a
        class that occurs here and is none of them.
        """
        if classes is None or self.classes is None or classes == self.classes:
            return self
        y = renumbered(self.y, self.classes, classes)
        return Dataset(self.rows, y, self.image_shape, classes, self.weights)

    def _number_classes(self) -> None:
        """Put numbers in the place of names."""
        numbers, classes = class_numbers(self.y, self.classes)
        if self.classes is None and all(map(reads_as_number, classes)):
            warnings.warn(
                f"y holds text, so it is taken for the names of {len(classes):,} classes: {listed(classes)}. They look "
                "like numbers; for these pass y.astype('float64'), or y.astype('int64') for class numbers.",
                DataWarning,
                stacklevel=4,
            )
        object.__setattr__(self, "y", numbers)
        object.__setattr__(self, "classes", classes)

    def look_like_classes(self) -> str | None:
        """How targets that are taken for real numbers could be meant as classes; None when nothing says so.

        They are written as 0. and 1., or as rows with a single 1.
        """
        if self.y.dtype.kind != "f":
            return None
        values = self.y.reshape(len(self.y), -1)
        if values.shape[1] == 1:
            if values.min() != 0 or not 1 <= values.max() < _FEW:
                return None
            distinct = np.unique(values)
            if not np.array_equal(distinct, np.arange(len(distinct))):
                return None
            return f"only the numbers {', '.join(f'{n:g}' for n in distinct)}; for classes pass y.astype(int)"
        if ((values == 0) | (values == 1)).all() and (np.count_nonzero(values, axis=1) == 1).all():
            return "a single 1 in every row; for classes pass y.argmax(axis=1)"
        return None


def _checked_weights(weights: Any, num_samples: int) -> Array:
    """One finite number of at least 0 for each sample, as float64; not all are 0."""
    array = check_numbers("weights", weights)
    if array.shape != (num_samples,):
        raise DataError(f"weights have shape {array.shape}; expected one for each sample: ({num_samples},).")
    check_finite("weights", array)
    array = array.astype(np.float64)
    if (array < 0).any():
        where = int(np.argmax(array < 0))
        raise DataError(f"weights[{where}] is {array[where]:g}; expected numbers of at least 0.")
    if not array.any():
        raise DataError("weights are 0 for all samples, so that nothing is left to learn from.")
    return array


def checked_rows(x: Any) -> Rows:
    """Samples (N, ...) as rows.  Raises `DataError` for what is none, and for no samples."""
    if not isinstance(x, Rows):
        return Rows(checked_samples(x))
    if isinstance(x.storage, np.ndarray):
        checked_samples(x.storage)
    if not x.size:
        raise DataError(f"The data set is empty: x has shape {x.shape}.")
    return x


def checked_samples(x: Any) -> Array:
    """Samples (N, ...) as an array of finite numbers.  Raises `DataError` for what is none, and for no samples."""
    array = check_numbers("x", x)
    check_finite("x", array)
    if array.ndim < 2:
        raise DataError(f"x has shape {array.shape}; expected samples along the first axis: (N, features).")
    if not array.size:
        raise DataError(f"The data set is empty: x has shape {array.shape}.")
    return array


@final
@dataclass(frozen=True, eq=False)
class Split:
    """A data set to train on, and one of unseen samples of the same kind to test with in the end.

    validation: another one of unseen samples, to judge by while it trains, where there is one.
    Raises `DataError` when one model can't serve all of them.
    """

    train: Dataset
    test: Dataset
    validation: Dataset | None = None

    def __post_init__(self) -> None:
        a_dataset = instance_of(Dataset)
        check_fields(self, train=a_dataset, test=a_dataset, validation=optional(a_dataset))
        _check_alike(self.train, self.test, "test with")
        if self.validation:
            _check_alike(self.train, self.validation, "validate with")

    @property
    def parts(self) -> tuple[Dataset, ...]:
        """The samples to train on, to test on, and to validate on if there are some."""
        return (self.train, self.test, *([self.validation] if self.validation else []))

    def num_outputs(self) -> int:
        """How many outputs a model for all parts needs."""
        return _num_outputs(*self.parts)


def _num_outputs(*parts: Dataset) -> int:
    """How many outputs a model needs for data sets with targets of the same kind."""
    if not parts[0].has_classes:
        return prod(parts[0].y.shape[1:])
    if parts[0].classes is not None:
        return len(parts[0].classes)
    for part in parts:
        if part.y.max() >= MAX_CLASSES:
            raise DataError(
                f"Label {part.y.max()} of sample {int(np.argmax(part.y))} is no class number: they count from 0 and "
                f"stay below {MAX_CLASSES}. Real targets are of a floating-point type."
            )
    labels = np.unique(np.concatenate([np.unique(part.y) for part in parts]))
    num_outputs = int(labels[-1]) + 1
    if 2 * len(labels) < num_outputs:
        warnings.warn(
            f"The labels go up to {num_outputs - 1}, but only {len(labels)} of these {num_outputs} classes occur. "
            "Number them without gaps: np.unique(y, return_inverse=True)[1].",
            DataWarning,
            stacklevel=3,
        )
    return num_outputs


def _check_numbers_of(classes: tuple[str, ...], y: Array, *, has_classes: bool) -> None:
    """Raise `DataError` unless targets are numbers of these classes."""
    if not has_classes:
        raise DataError(f"classes={listed(classes)} are for class numbers, but y is {y.dtype} of shape {y.shape}.")
    wrong = (y < 0) | (y >= len(classes))
    if wrong.any():
        place = int(np.argmax(wrong))
        raise DataError(f"y[{place}] is {y[place]}, but there are {len(classes)} classes: {listed(classes)}.")


def looks_channels_first(shape: tuple[int, ...]) -> bool:
    """Whether samples of this shape are probably images (channels, height, width)."""
    return len(shape) == 3 and shape[0] <= 4 < min(shape[1:])


def _check_alike(train: Dataset, other: Dataset, use: str) -> None:
    """Raise `DataError` when one model can't serve both.  use: of the other one."""
    if train.sample_shape != other.sample_shape:
        raise DataError(
            f"Samples to train on have shape {train.sample_shape}, but those to {use} {other.sample_shape}; "
            "expected the same."
        )
    if train.has_classes != other.has_classes or train.y.shape[1:] != other.y.shape[1:]:
        raise DataError(
            f"Targets to train on are {train.y.dtype} of shape {train.y.shape}, but those to {use} {other.y.dtype} "
            f"of shape {other.y.shape}; expected the same kind."
        )
    if train.classes != other.classes:
        raise DataError(
            f"Classes to train on are {_told(train.classes)}, but those to {use} {_told(other.classes)}; expected the "
            "same: Dataset(x, y, classes=...)."
        )


def _told(classes: tuple[str, ...] | None) -> str:
    return "without names" if classes is None else listed(classes)

"""Classes by their names: labels that are text become class numbers, and the names are kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_sequence
from dist_relu.errors import DataError

MAX_CLASSES = 1_000_000
_FEW = 10
_LONGEST_NAME = 40


def are_text(y: Any) -> bool:
    """Whether labels are names: strings of NumPy, or strings of Python in an array, a list or a column of a frame."""
    try:
        array = np.asarray(y)
    except Exception:  # ragged lists, and what else is no array
        return False
    return array.ndim > 0 and (array.dtype.kind in "UT" or (array.dtype == object and _holds_text(array)))


def class_numbers(y: Any, classes: Sequence[str] | None = None) -> tuple[Array, tuple[str, ...]]:
    """The numbers of labels that are text, (N,) int64, and the names of the classes that they number.

    classes: these names, in their order; by default those that occur, sorted.  Raises `DataError` for a label that is
    none of them, or is missing.
    """
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels.reshape(-1)
    if labels.ndim != 1:
        raise DataError(f"y holds text of shape {labels.shape}; expected the name of a class for every sample: (N,).")
    if labels.dtype == object:
        for place, label in enumerate(labels):
            if not isinstance(label, str):
                raise DataError(f"y[{place}] is {label!r}; expected the name of a class, as in the other rows.")
    if classes is None:
        names, numbers = np.unique(labels, return_inverse=True)
        return numbers.astype(np.int64), check_classes(names.tolist())
    known = {name: number for number, name in enumerate(classes)}
    found = np.empty(len(labels), np.int64)
    for place, label in enumerate(labels.tolist()):
        number = known.get(label)
        if number is None:
            raise DataError(f"y[{place}] is {shown_name(label)}, which is none of the classes {listed(classes)}.")
        found[place] = number
    return found, tuple(classes)


def check_classes(classes: Any) -> tuple[str, ...]:
    """Names of classes, by their numbers.  Raises `DataError` unless they are different texts."""
    names = tuple(check_sequence("Dataset(classes)", classes, _check_name, "names"))
    if not 0 < len(names) <= MAX_CLASSES:
        raise DataError(f"There are {len(names):,} names of classes; expected from 1 to {MAX_CLASSES:,}.")
    if len(set(names)) < len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise DataError(f"Dataset(classes): {shown_name(twice)} stands there twice.")
    return names


def renumbered(y: Array, classes: Sequence[str], new: Sequence[str]) -> Array:
    """Class numbers y (N,) among `classes` as numbers of the same names among `new`.

    Raises `DataError` for a class that occurs and is none of the new ones.
    """
    known = {name: number for number, name in enumerate(new)}
    numbers = np.array([known.get(name, -1) for name in classes], np.int64)[y]
    if len(numbers) and numbers.min() < 0:
        unknown = classes[int(y[int(np.argmin(numbers))])]
        raise DataError(f"The data have a class {shown_name(unknown)}, which is none of the classes {listed(new)}.")
    return numbers


def listed(classes: Iterable[str]) -> str:
    """Names of classes in a sentence, the first few of many."""
    names = list(classes)
    told = ", ".join(map(shown_name, names[:_FEW]))
    return f"{told}, ... ({len(names):,} in all)" if len(names) > _FEW else told


def reads_as_number(name: str) -> bool:
    """Whether a name is hardly meant for one, since it is a number."""
    try:
        float(name)
    except ValueError:
        return False
    return True


def shown_name(name: str) -> str:
    """A name as a terminal can show it: it may come from a file of a stranger."""
    short = name if len(name) <= _LONGEST_NAME else name[:_LONGEST_NAME] + "..."
    return short if short and short.isprintable() and short == short.strip() else repr(short)


def _holds_text(array: Array) -> bool:
    return any(isinstance(item, str) for item in array.flat)


def _check_name(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name}={value!r}: expected a text, the name of a class.")
    return str(value)

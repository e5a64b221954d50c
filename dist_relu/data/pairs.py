"""Samples and targets under the names that people give them, in .npz and HDF5 files and as .npy files in a folder."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.data.dataset import Split
from dist_relu.data.parts import Part, PartName, is_of_bytes, joined, naming
from dist_relu.data.rows import Rows
from dist_relu.errors import DataError, DataWarning

_MOST_UNLIKELY_SHADE = 128
"""Images have some that are brighter."""

_PAIRS = (
    ("x", "y"),
    ("X", "y"),
    ("X", "Y"),
    ("images", "labels"),
    ("data", "labels"),
    ("data", "target"),
    ("features", "labels"),
    ("set_x", "set_y"),
)
_TRAIN = ("{}", "{}_train", "train_{}")
_OTHERS: dict[PartName, tuple[str, ...]] = {
    "test": ("{}_test", "test_{}"),
    "validation": ("{}_val", "val_{}", "{}_valid", "valid_{}"),
}


_WEIGHTS: dict[PartName, str] = {
    "train": "sample_weight",
    "test": "sample_weight_test",
    "validation": "sample_weight_val",
}


class Pair(NamedTuple):
    """The names of samples and of their targets."""

    x: str
    y: str


def find_pairs(where: object, names: Collection[str]) -> dict[PartName, Pair]:
    """Samples and targets of each part among the names of arrays: x and y, x_train and y_train, train_images and so on.

    Of several that are there the first counts, of those above.  Raises `DataError` where there are none, or only one of
    a pair.
    """
    forms = [Pair(form.format(x), form.format(y)) for x, y in _PAIRS for form in _TRAIN]
    train = next((one for one in forms if one.x in names and one.y in names), None)
    if train is None:
        near = next((one for one in forms if one.x in names), next((one for one in forms if one.y in names), forms[0]))
        missing = [name for name in near if name not in names]
        held = ", ".join(sorted(names)) or "nothing"
        raise DataError(
            f"{where} has no array {' or '.join(missing)}; it holds {held}. Expected {near.x} and {near.y}."
        )
    pairs: dict[PartName, Pair] = {"train": train}
    x, y = _PAIRS[forms.index(train) // len(_TRAIN)]
    for part, others in _OTHERS.items():
        for form in others:
            pair = Pair(form.format(x), form.format(y))
            there = [name for name in pair if name in names]
            if len(there) == 1:
                raise DataError(f"{where} has only one of {pair.x} and {pair.y}; expected both or neither.")
            if there:
                pairs.setdefault(part, pair)
    return pairs


def joined_pairs(
    where: Path, pairs: Mapping[PartName, Pair], read: Callable[[str], Array | Rows], names: Collection[str]
) -> Split:
    """Read the arrays of all parts, and the weights of samples, where there are such among all names.

    Bytes of three dimensions are images in grey.  Raises `DataError`.
    """
    parts: dict[PartName, Part] = {}
    for part, pair in pairs.items():
        x, y = read(pair.x), np.asarray(read(pair.y))
        _check_scale(where, pair.x, x, parts.get("train"))
        weights = np.asarray(read(_WEIGHTS[part])) if _WEIGHTS[part] in names else None
        shape = (*x.shape[1:], 1) if is_of_bytes(x) and x.ndim == 3 else None
        parts[part] = Part(x, y, shape, weights=weights)
    with naming(where):
        return joined(parts)


def _check_scale(where: Path, name: str, x: Array | Rows, train: Part | None) -> None:
    """Warn of bytes that are hardly shades.  Raises `DataError` where only some parts are bytes."""
    stored = x.storage if isinstance(x, Rows) else x
    if train is None and is_of_bytes(x) and isinstance(stored, np.ndarray) and stored.size:
        least, most = stored.min(), stored.max()
        if most < _MOST_UNLIKELY_SHADE:
            warnings.warn(
                f"{where}: {name} holds bytes from {least} to {most}. Bytes of files are taken for images and divided "
                "by 255; numbers that are to stay as they are must be of another type, such as float32 or int32.",
                DataWarning,
                stacklevel=5,
            )
    if train is not None and is_of_bytes(x) != is_of_bytes(train.x):
        raise DataError(
            f"{where} has samples of {train.x.dtype} to train on, but of {x.dtype} in {name}. Bytes become numbers in "
            "[0, 1], others stay as they are; expected the same type."
        )

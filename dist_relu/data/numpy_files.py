"""Data sets in NumPy's files: .npz with samples and targets, .npy with samples alone."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.data.archives import Arrays, array_in, open_arrays
from dist_relu.data.dataset import Dataset, Split, checked_samples
from dist_relu.data.parts import naming, scaled, set_apart
from dist_relu.errors import DataError, DataWarning


def load_npz(path: Path) -> Split:
    with open_arrays(path) as arrays:
        keras = "x" not in arrays.names and "x_train" in arrays.names
        train = ("x_train", "y_train") if keras else ("x", "y")
        x, y = _required(arrays, *train)
        has_test = [name in arrays.names for name in ("x_test", "y_test")]
        if any(has_test) and not all(has_test):
            raise DataError(f"{path} has only one of x_test and y_test; expected both or neither.")
        test = _required(arrays, "x_test", "y_test") if all(has_test) else None
        weights, test_weights = (
            arrays.read(name) if name in arrays.names else None for name in ("sample_weight", "sample_weight_test")
        )
    if x.dtype == np.uint8 and x.size and x.max() < 128:
        warnings.warn(
            f"{path}: {train[0]} holds bytes from {x.min()} to {x.max()}. Bytes of files are taken for images and "
            "divided by 255; numbers that are to stay as they are must be of another type, such as float32 or int32.",
            DataWarning,
            stacklevel=3,
        )
    if test is not None and (x.dtype == np.uint8) != (test[0].dtype == np.uint8):
        raise DataError(
            f"{path} has samples of {x.dtype} to train on, but of {test[0].dtype} to test with. Bytes become numbers "
            "in [0, 1], others stay as they are; expected the same type."
        )
    with naming(path):
        whole = _images(x, y, weights)
        return set_apart(whole) if test is None else Split(whole, _images(test[0], test[1], test_weights))


def load_samples(path: Path) -> Array:
    """The samples in a .npy file, or x of a .npz file, scaled as those of `load`.  Raises `DataError`."""
    with open_arrays(path) as arrays:
        (x,) = _required(arrays, "x")
    with naming(path):
        return checked_samples(np.asarray(scaled(x)))


def samples_in(content: bytes, where: str) -> Array:
    """The samples in the content of a .npy file, scaled as those of `load`.  Raises `DataError`."""
    x = array_in(content, where)
    with naming(where):
        return checked_samples(np.asarray(scaled(x)))


def _required(arrays: Arrays, *names: str) -> list[Array]:
    missing = [name for name in names if name not in arrays.names]
    if missing:
        held = ", ".join(sorted(arrays.names)) or "nothing"
        raise DataError(
            f"{arrays.path} has no array {' or '.join(missing)}; it holds {held}. Expected {' and '.join(names)}."
        )
    return [arrays.read(name) for name in names]


def _images(x: Array, y: Array, weights: Array | None) -> Dataset:
    """A data set of arrays from a file. Bytes of three dimensions are images in grey."""
    return Dataset(scaled(x), y, (*x.shape[1:], 1) if x.dtype == np.uint8 and x.ndim == 3 else None, weights=weights)

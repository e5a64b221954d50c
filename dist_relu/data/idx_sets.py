"""Sets of IDX files: images and labels, to train on and to test with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dist_relu.core.array_checks import check_finite, first_where
from dist_relu.core.arrays import Array
from dist_relu.data.dataset import Dataset, Split
from dist_relu.data.folders import Files
from dist_relu.data.idx import read_idx
from dist_relu.data.parts import naming, scaled
from dist_relu.errors import DataError

_MAX_LABEL = 2**53


def load_idx(files: Files) -> Split:
    """The four files of a set.  Raises `DataError`."""
    parts = []
    for part in ("train", "test"):
        images, labels = read_idx(files[part, "images"]), read_idx(files[part, "labels"])
        if images.ndim != 3 or labels.ndim != 1:
            raise DataError(
                f"{files[part, 'images'].parent} holds {part} images of shape {images.shape} and labels of shape "
                f"{labels.shape}; expected (N, height, width) and (N,)."
            )
        _check_pixels(files[part, "images"], images)
        x = scaled(images.reshape(len(images), images.shape[1] * images.shape[2]))
        y = _class_numbers(files[part, "labels"], labels)
        with naming(files[part, "images"]):
            parts.append(Dataset(x, y, (images.shape[1], images.shape[2], 1)))
    return Split(*parts)


def _check_pixels(path: Path, images: Array) -> None:
    """Raise `DataError` unless images are bytes, or floats in [0, 1]."""
    if images.dtype == np.uint8:
        return
    if images.dtype.kind != "f":
        raise DataError(
            f"{path} holds images of {images.dtype}, whose scale nothing tells; expected bytes, or floats in [0, 1]. "
            "Numbers of any other scale are read from .npz files, and stay as they are there."
        )
    check_finite(str(path), images)
    if images.size and not 0 <= images.min() <= images.max() <= 1:
        raise DataError(
            f"{path} holds images of {images.dtype} from {images.min():g} to {images.max():g}; expected bytes, or "
            "floats in [0, 1]. Numbers of any other scale are read from .npz files, and stay as they are there."
        )


def _class_numbers(path: Path, labels: Array) -> Array:
    """Labels as int64."""
    if labels.dtype.kind == "f":
        wrong = ~(np.abs(labels) < _MAX_LABEL) | (np.floor(labels) != labels)  # NaN too
        if wrong.any():
            where = first_where(wrong)
            raise DataError(f"{path}: label {where[0]} is {labels[where]}; expected class numbers.")
    return labels.astype(np.int64)

"""Samples without targets, for a model to say something of."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.untrusted import reading
from dist_relu.data.dataset import checked_samples
from dist_relu.data.image_folders import is_image, read_images
from dist_relu.data.numpy_files import load_numpy_samples
from dist_relu.data.parts import naming, scaled
from dist_relu.data.table_files import is_table, load_table_samples
from dist_relu.errors import DataError


def load_samples(path: Path) -> Array:
    """The samples in a .npy file, x of a .npz file, all columns of a table, or images: one, or those in a folder.

    They are scaled as those of `load`; images of a folder come in the order of their names.  Raises `DataError`.
    """
    if is_table(path):
        x = load_table_samples(path)
    elif path.is_dir() or is_image(path):
        x = _images(path)
    else:
        x = load_numpy_samples(path)
    with naming(path):
        return checked_samples(np.asarray(scaled(x)))


def _images(path: Path) -> Array:
    paths = sorted(each for each in path.iterdir() if is_image(each)) if path.is_dir() else [path]
    if not paths:
        raise DataError(f"{path} holds no images; expected files such as .png or .jpg in it.")
    with reading(path, DataError, "images"):
        return read_images(paths)

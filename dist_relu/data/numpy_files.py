"""Data sets in NumPy's files: .npz with samples and targets, .npy side by side in a folder, .npy with samples alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.data.archives import array_in, open_arrays
from dist_relu.data.dataset import Split, checked_samples
from dist_relu.data.mapped import NpyFile
from dist_relu.data.pairs import find_pairs, joined_pairs
from dist_relu.data.parts import SHADE, has_room, naming, scaled
from dist_relu.data.rows import Rows
from dist_relu.errors import DataError


def load_npz(path: Path) -> Split:
    """The arrays of a .npz file that have the names of samples and targets, see `find_pairs`; others are not read."""
    with open_arrays(path) as arrays:
        names = set(arrays.names)
        return joined_pairs(path, find_pairs(path, names), arrays.read, names)


def load_npy_folder(folder: Path) -> Split:
    """The .npy files of a folder that have the names of samples and targets, see `find_pairs`.

    Samples for which memory is short stay in their files until a batch needs them.
    """

    def read(name: str) -> Array | Rows:
        path = folder / f"{name}.npy"
        if name in samples and not has_room(path.stat().st_size):
            stored = NpyFile.of(path)
            return Rows(stored, scale=SHADE if stored.dtype == np.uint8 else None)
        with open_arrays(path) as arrays:
            return arrays.read("x")

    names = {path.stem for path in folder.glob("*.npy")}
    pairs = find_pairs(folder, names)
    samples = {pair.x for pair in pairs.values()}
    return joined_pairs(folder, pairs, read, names)


def load_numpy_samples(path: Path) -> Array:
    """The samples in a .npy file, or x of a .npz file.  Raises `DataError`."""
    with open_arrays(path) as arrays:
        if "x" not in arrays.names:
            held = ", ".join(sorted(arrays.names)) or "nothing"
            raise DataError(f"{path} has no array x; it holds {held}.")
        return arrays.read("x")


def samples_in(content: bytes, where: str) -> Array:
    """The samples in the content of a .npy file, scaled as those of `load`.  Raises `DataError`."""
    x = array_in(content, where)
    with naming(where):
        return checked_samples(np.asarray(scaled(x)))

"""Data sets in HDF5 files: samples and targets as datasets in it, named after the file or found by the usual names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.untrusted import reading
from dist_relu.data.dataset import Split
from dist_relu.data.idx import check_room
from dist_relu.data.mapped import Hdf5Dataset, h5py
from dist_relu.data.pairs import Pair, find_pairs, joined_pairs
from dist_relu.data.parts import SHADE, PartName, kept
from dist_relu.data.rows import Rows
from dist_relu.errors import DataError

SUFFIXES = {".h5", ".hdf5", ".hdf"}
_PARTS: tuple[PartName, ...] = ("train", "test", "validation")


def load_hdf5(path: Path, names: str | None) -> Split:
    """Datasets of a file.  names: "SAMPLES,TARGETS", or also those to test with, and to validate with, after them.

    Without names they are found by those of `find_pairs`.  Raises `DataError`.
    """
    with reading(path, DataError, "an HDF5 file"), h5py().File(path, "r") as file:
        there = {name for name in file if isinstance(file.get(name), h5py().Dataset)}
        if names is None:
            pairs = find_pairs(path, there)
        else:
            given = names.split(",")
            if len(given) not in (2, 4, 6):
                raise DataError(f"{path}:{names}: expected two names, or four, or six: samples,targets of each part.")
            pairs = {part: Pair(*given[i : i + 2]) for part, i in zip(_PARTS, range(0, len(given), 2), strict=False)}
        samples = {pair.x for pair in pairs.values()}

        def read(name: str) -> Array | Rows:
            dataset = _dataset(path, file, name)
            return _samples(path, name) if name in samples else _targets(path, dataset, name)

        return joined_pairs(path, pairs, read, there)


def _samples(path: Path, name: str) -> Array | Rows:
    dataset = Hdf5Dataset.of(path, name)
    return kept(Rows(dataset, scale=SHADE if dataset.dtype == np.uint8 else None))


def _dataset(path: Path, file: Any, name: str) -> Any:
    """A dataset by its name.  Raises `DataError` where there is none, or where it lies in other files."""
    dataset = file.get(name)
    if not isinstance(dataset, h5py().Dataset):
        raise DataError(f"{path} has no dataset {name!r}; it has {', '.join(map(str, file)) or 'nothing'}.")
    if dataset.file.filename != file.filename or dataset.external or dataset.is_virtual:
        raise DataError(f"{path}: {name} lies in other files; expected it in this one.")
    return dataset


def _targets(path: Path, dataset: Any, name: str) -> Array:
    """All of a dataset, numbers or text."""
    library = h5py()
    check_room(f"{path}: {name}", int(dataset.nbytes))
    text = library.check_string_dtype(dataset.dtype)
    return np.asarray(dataset.asstr()[()] if text is not None else dataset[()])

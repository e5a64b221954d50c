"""Damaged files of formats that libraries read: tables, HDF5, images, tar files, LIBSVM's text; and .npy pairs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import dist_relu as dr
from tests.data import formats
from tests.long.data_files import mutate
from tests.long.harness import check_refused

_WRITERS: list[Callable[[Path], Any]] = [
    *(formats.npy_files, formats.hdf5, formats.hdf5_by_usual_names, formats.image_folder, formats.webdataset),
    *(formats.csv, formats.libsvm),
    *(formats.parquet, formats.many_parquets, formats.parquet_of_lists, formats.parquet_of_images, formats.feather),
]


@dataclass(frozen=True)
class Written:
    """A data set in files, what `load` calls it, and what stands in its files."""

    source: str
    contents: dict[Path, bytes]


def prepare(folder: Path) -> list[Written]:
    written = []
    for number, write in enumerate(_WRITERS):
        here = folder / str(number)
        here.mkdir()
        source = str(write(here))
        dr.data.load(source)
        written.append(Written(source, {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}))
    return written


def attempt(files: list[Written], rng: np.random.Generator) -> None:
    one = files[int(rng.integers(len(files)))]
    path = sorted(one.contents)[int(rng.integers(len(one.contents)))]
    path.write_bytes(mutate(rng, one.contents[path]))
    try:
        with warnings.catch_warnings(action="ignore"):
            data = check_refused(lambda: dr.data.load(one.source), dr.DataError)
        if data is not None:
            for part in data.parts:
                assert np.isfinite(np.asarray(part.x)).all()
                assert len(part.x) == len(part.y)
    finally:
        path.write_bytes(one.contents[path])

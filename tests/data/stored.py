"""The same samples in files of every kind that rows can stay in."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet

from dist_relu.core.arrays import Array
from dist_relu.data import Hdf5Dataset, NpyFile, Rows, TableFiles

KINDS = ["npy", "hdf5", "hdf5-packed", "feather", "parquet-1", "parquet-10"]


def stored(x: Array, kind: str, folder: Path, scale: float | None = None) -> Rows:
    """Write x (N, F) into files, and return its rows.  kind: one of KINDS, or "parquet-" and any number of files."""
    name, _, how = kind.partition("-")
    path = folder / f"x.{name}"
    if name == "npy":
        np.save(path, x)
        return Rows(NpyFile.of(path), scale=scale)
    if name == "hdf5":
        with h5py.File(path, "w") as file:
            file.create_dataset("x", data=x, **({"chunks": (50, x.shape[1]), "compression": "gzip"} if how else {}))
        return Rows(Hdf5Dataset.of(path, "x"), scale=scale)
    columns = [f"f{number:03}" for number in range(x.shape[1])]
    table = pa.table(dict(zip(columns, x.T, strict=True)))
    if name == "feather":
        pyarrow.feather.write_feather(table, path, chunksize=70)
        return Rows(TableFiles.of([path], columns), scale=scale)
    bounds = np.linspace(0, len(x), int(how) + 1).astype(int)
    paths = [folder / f"{number:04}.parquet" for number in range(int(how))]
    for part, first, stop in zip(paths, bounds, bounds[1:], strict=False):
        pyarrow.parquet.write_table(table.slice(first, stop - first), part, row_group_size=60)
    return Rows(TableFiles.of(paths, columns), scale=scale)

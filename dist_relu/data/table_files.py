"""Tables in files with a column to predict: CSV, Parquet and Feather, one file or several that make one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.untrusted import read_up_to
from dist_relu.data.dataset import Split
from dist_relu.data.frames import (
    check_has_rows,
    class_names,
    feature_names,
    features_of,
    is_of_images,
    is_of_shades,
    labelled,
    labels_of,
    weight_columns,
    weights_of,
)
from dist_relu.data.idx import check_room
from dist_relu.data.parts import SHADE, Part, by_part, joined, kept, naming
from dist_relu.data.rows import Rows
from dist_relu.data.tables import FEATHER, TableFiles, parquet, reading_table
from dist_relu.errors import DataError

_CSV = {".csv", ".tsv"}
SUFFIXES = {*_CSV, ".parquet", ".pq", *FEATHER}
_DELIMITERS = ",;\t|"
_LONGEST_HEADER_BYTES = 2**20
_MOST_BLOCK_BYTES = 2**31 - 1
_CELL_BYTES = 8


def is_table(path: Path) -> bool:
    """Whether the name of a file says that it is a table."""
    return path.suffix.lower() in SUFFIXES


def load_tables(where: Path, paths: Sequence[Path], target: str | None) -> Split:
    """The rows of all files, in the order of the files' names.  target: the column to predict, or several with commas.

    Files called train..., test... and val... are parts.  See `dist_relu.data.frames.from_frame` for what columns may
    hold.  Raises `DataError`.
    """
    with reading_table(where):  # also the names of columns are decoded only when they are asked for
        return _load(where, paths, target)


def load_table_samples(path: Path) -> Array:
    """All columns of a table, as samples.  Raises `DataError`."""
    with reading_table(path):
        table = _read_csv(path) if path.suffix.lower() in _CSV else _read(path, None)
        check_has_rows(str(path), table)
        return features_of(str(path), table, feature_names(str(path), table.schema, []))[0]


def _load(where: Path, paths: Sequence[Path], target: str | None) -> Split:
    kinds = {path.suffix.lower() for path in paths}
    if len(kinds) > 1:
        raise DataError(
            f"{where} holds files of {' and '.join(sorted(kinds))}; expected one kind, as in *{min(kinds)}."
        )
    parts = by_part(where, paths)
    if kinds <= _CSV:
        tables = {part: _read_csvs(files) for part, files in parts.items()}
        targets = _targets(where, tables["train"].schema, target)
        read = {part: labelled(str(parts[part][0]), table, targets) for part, table in tables.items()}
    else:
        targets = _targets(where, _schema(parts["train"][0]), target)
        read = {part: _read_columnar(files, targets) for part, files in parts.items()}
    with naming(where):
        return joined(read)


def _targets(where: Path, schema: Any, target: str | None) -> list[str]:
    if target is None:
        names = ", ".join(schema.names[:20])
        raise DataError(f"{where}: which column is to be predicted? Expected {where}:COLUMN, with one of {names}.")
    return [target] if target in schema.names else target.split(",")


def _read_columnar(paths: Sequence[Path], targets: Sequence[str]) -> Part:
    """Features and targets in Parquet or Feather files."""
    where, schema = str(paths[0]), _schema(paths[0])
    features = feature_names(where, schema, targets)
    wanted = [*targets, *weight_columns(schema, targets)]
    tables = [(str(path), _read(path, wanted)) for path in paths]
    labels = [labels_of(name, table, targets) for name, table in tables]
    found = [weights_of(name, table, targets) for name, table in tables]
    weights = None if found[0] is None else np.concatenate([each for each in found if each is not None])
    if len({each.dtype.kind for each in labels}) > 1:
        raise DataError(f"{where}: the target {', '.join(targets)} is not of the same kind in all {len(paths)} files.")
    classes = class_names(schema, targets)
    if is_of_images(schema, features):
        images = [features_of(str(path), _read(path, features), features)[0] for path in paths]
        if len({each.shape[1:] for each in images}) > 1:
            raise DataError(f"{where}: the images in {len(paths)} files are not all of one size, and grey or coloured.")
        return Part(np.concatenate(images), np.concatenate(labels), images[0].shape[1:], classes, weights)
    files = TableFiles.of(paths, features)
    scale = None if files.dtype != np.uint8 else SHADE if is_of_shades(schema, features) else 1.0
    return Part(kept(Rows(files, scale=scale)), np.concatenate(labels), None, classes, weights)


def _read(path: Path, columns: Sequence[str] | None) -> Any:
    """Columns of a Parquet or Feather file as a table of pyarrow; None for all."""
    library = parquet()
    import pyarrow as pa

    with reading_table(path):
        if path.suffix.lower() in FEATHER:
            with pa.memory_map(str(path)) as source:
                names = pa.ipc.open_file(source).schema.names
                chosen = None if columns is None else [place for place, name in enumerate(names) if name in columns]
                return pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(included_fields=chosen)).read_all()
        schema = library.read_schema(path)
        texts = [field.name for field in schema if pa.types.is_string(field.type)]
        with library.ParquetFile(path, read_dictionary=texts) as file:
            num_columns = len(schema.names if columns is None else columns)
            check_room(path, file.metadata.num_rows * num_columns * _CELL_BYTES)
            return file.read(columns=None if columns is None else list(columns))


def _schema(path: Path) -> Any:
    library = parquet()
    import pyarrow as pa

    with reading_table(path):
        if path.suffix.lower() in FEATHER:
            with pa.memory_map(str(path)) as source:
                return pa.ipc.open_file(source).schema
        return library.read_schema(path)


def _read_csvs(paths: Sequence[Path]) -> Any:
    parquet()
    import pyarrow as pa

    tables = [_read_csv(path) for path in paths]
    for path, table in zip(paths, tables, strict=True):
        if table.schema.names != tables[0].schema.names:
            raise DataError(f"{path} has other columns than {paths[0]}; expected the same in all files.")
    with reading_table(paths[0]):
        return pa.concat_tables(tables, promote_options="permissive") if len(tables) > 1 else tables[0]


def _read_csv(path: Path) -> Any:
    """A CSV file as a table of pyarrow; types are those that all rows of a column can have."""
    parquet()
    from pyarrow import csv

    with reading_table(path):
        with path.open("rb") as file:
            header = bytes(read_up_to(file, _LONGEST_HEADER_BYTES)).partition(b"\n")[0]
            size_bytes = file.seek(0, 2)
        if not header.strip():
            raise DataError(f"{path} is empty, or begins with an empty line; expected the names of its columns there.")
        delimiter = max(_DELIMITERS, key=lambda one: header.count(one.encode()))
        check_room(path, size_bytes)
        return csv.read_csv(
            path,
            read_options=csv.ReadOptions(block_size=min(size_bytes + 1, _MOST_BLOCK_BYTES)),
            parse_options=csv.ParseOptions(delimiter=delimiter),
        )

"""Columns of tables in Parquet and Feather files, as rows of numbers. Several files in a row make one table.

A row group can only be decoded as a whole, and batches take their rows from everywhere. So the first row that is wanted
of a group has all of it decoded, once in each process, into a file without a name that is as large as the whole table
then: from there on rows are read from the page cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any, NamedTuple, Self, final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.untrusted import reading
from dist_relu.data.mapped import check_stored, check_there
from dist_relu.data.rows import Storage
from dist_relu.data.unnamed_files import unnamed_file
from dist_relu.errors import DataError

FEATHER = {".feather", ".arrow"}


class _Group(NamedTuple):
    """The rows of a table that are decoded together: a row group of Parquet, a record batch of Feather."""

    path: Path
    number: int
    num_rows: int


@final
@dataclass(frozen=True)
class TableFiles(Storage):
    """Columns of tables, next to one another: (N, F).  Those of lists have as many columns as each list has numbers.

    groups: in the order of their rows.
    """

    columns: Sequence[str]
    groups: Sequence[_Group]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, paths: Sequence[str | Path], columns: Sequence[str]) -> Self:
        """Columns of files that follow one another in the order of their names.

        Raises `DataError` for a file that is none, and for columns that are missing, or not of numbers.
        """
        groups: list[_Group] = []
        found: tuple[int, np.dtype[Any]] | None = None
        for path in sorted(Path(path).absolute() for path in paths):
            with reading_table(path):
                groups += [group for group in _groups(path) if group.num_rows]
                if groups and groups[-1].path == path:
                    here = _form(_decode(groups[-1], columns, 1))
                    if found is not None and found != here:
                        raise DataError(
                            f"{path} has {here[0]} numbers of {here[1]} in a row, but {groups[0].path} has "
                            f"{found[0]} of {found[1]}; expected the same columns in all files."
                        )
                    found = here
        if found is None:
            raise DataError(f"The data set is empty: {len(paths)} files have no rows.")
        shape = sum(group.num_rows for group in groups), found[0]
        check_stored(f"{groups[0].path}: the columns", shape, found[1])
        return cls(tuple(columns), tuple(groups), shape, found[1])

    def memory(self) -> Array | None:
        return None  # not before all of it is decoded

    def bring(self, numbers: Array) -> bool:
        return True  # as near as they can be before they are decoded

    def read(self, numbers: Array) -> Array:
        wanted = np.unique(np.searchsorted(self._starts, numbers, "right") - 1)
        with self._lock:
            for place in wanted[~self._is_decoded[wanted]]:
                group, first = self.groups[place], self._starts[place]
                check_there(group.path)
                with reading_table(group.path):
                    self._put(group, self._decoded[first : first + group.num_rows], int(first))
                self._is_decoded[place] = True
        rows: Array = self._decoded[numbers]
        return rows

    def _put(self, group: _Group, out: Array, first: int) -> None:
        """Decode a group into `out`.  first: the number of its first row."""
        columns = _decode(group, self.columns)
        if _form(columns) != (self.shape[1], self.dtype) or len(columns[0]) != group.num_rows:
            raise DataError(f"{group.path} has changed; expected {group.num_rows} rows of {self.shape[1]} numbers.")
        for column, place in zip(columns, _places(columns), strict=True):
            out[:, place] = column.reshape(len(out), -1)

    @cached_property
    def _starts(self) -> Array:
        """The number of the first row of each group."""
        return np.cumsum([0, *(group.num_rows for group in self.groups[:-1])])

    @cached_property
    def _is_decoded(self) -> Array:
        return np.zeros(len(self.groups), np.bool_)

    @cached_property
    def _lock(self) -> Any:
        return Lock()

    @cached_property
    def _decoded(self) -> Array:
        """Memory for all rows."""
        return unnamed_file(self.shape, self.dtype, str(self.groups[0].path))

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("columns", "groups", "shape", "dtype")}


@contextmanager
def reading_table(path: Path) -> Iterator[None]:
    """`reading`, where pyarrow asks for as much memory as a damaged file announces, and is refused it."""
    with reading(path, DataError, "a table"):
        try:
            yield
        except MemoryError:
            raise DataError(f"{path} announces more than memory can hold: it is damaged, or too large.") from None


def _groups(path: Path) -> Iterator[_Group]:
    """Go through the groups of a file."""
    if path.suffix.lower() in FEATHER:
        with _feather(path) as file:
            sizes = [file.get_batch(number).num_rows for number in range(file.num_record_batches)]
    else:
        with parquet().ParquetFile(path) as file:
            sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    return (_Group(path, number, num_rows) for number, num_rows in enumerate(sizes))


def _decode(group: _Group, columns: Sequence[str], most_rows: int | None = None) -> list[Array]:
    """The columns of a group, (rows,) or (rows, length of lists) each.  most_rows: only so many of the first rows."""
    if group.path.suffix.lower() in FEATHER:
        with _feather(group.path) as file:
            table = file.get_batch(group.number)
            _check_columns(group.path, table.schema.names, columns)
            return [column_numbers(group.path, name, table.column(name), most_rows) for name in columns]
    with parquet().ParquetFile(group.path) as file:
        _check_columns(group.path, file.schema_arrow.names, columns)
        if most_rows is None:
            table = file.read_row_group(group.number, columns=list(columns))
        else:
            table = next(file.iter_batches(most_rows, row_groups=[group.number], columns=list(columns)))
        return [column_numbers(group.path, name, table.column(name), most_rows) for name in columns]


def _check_columns(path: Path, names: Sequence[str], columns: Sequence[str]) -> None:
    missing = [name for name in columns if name not in names]
    if missing:
        raise DataError(f"{path} has no column {', '.join(missing)}; it has {', '.join(names) or 'none'}.")


def column_numbers(path: Path | str, name: str, column: Any, most_rows: int | None) -> Array:
    """A column as an array of numbers.  Raises `DataError`."""
    import pyarrow as pa

    column = column.slice(0, most_rows)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    width = None
    if isinstance(column.type, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
        num_rows = len(column)
        _check_no_gaps(path, name, column)
        column = column.flatten()
        if len(column) % num_rows:
            raise DataError(f"{path}: the lists of column {name} are not of one length.")
        width = len(column) // num_rows
    kind = column.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise DataError(f"{path}: column {name} is of type {kind}; expected numbers.")
    _check_no_gaps(path, name, column)
    values: Array = column.to_numpy(zero_copy_only=False)
    return values if width is None else values.reshape(-1, width)


def _check_no_gaps(path: Path | str, name: str, column: Any) -> None:
    if column.null_count:
        row = int(np.argmin(column.is_valid().to_numpy(zero_copy_only=False)))
        raise DataError(f"{path}: column {name} is empty in row {row}; put a number there, or leave the row out.")


def _form(columns: Sequence[Array]) -> tuple[int, np.dtype[Any]]:
    """How many numbers a row has, and of which type."""
    return sum(column[0].size for column in columns), np.result_type(*columns)


def _places(columns: Sequence[Array]) -> Iterator[slice]:
    """Where each column lies in a row."""
    stop = 0
    for column in columns:
        first, stop = stop, stop + column[0].size
        yield slice(first, stop)


def parquet() -> ModuleType:
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise DataError("Parquet and Feather files are read by pyarrow: pip install 'dist_relu[tables]'.") from None
    return pq  # type: ignore[no-any-return]


def _feather(path: Path) -> Any:
    parquet()
    import pyarrow as pa

    return pa.ipc.open_file(pa.memory_map(str(path)))

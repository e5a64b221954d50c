"""Samples that stay where they are until a batch needs them: in files larger than memory, or as bytes in memory.

A `Dataset` takes `Rows` where it takes an array of samples. A reader makes them of an array, or of a storage, of which
each kind of file has one (`dist_relu/data/mapped.py`, `dist_relu/data/tables.py`):

    Rows(NpyFile.of(path))                     # an array in a .npy file
    Rows(Hdf5Dataset.of(path, "images"))       # a dataset of an HDF5 file
    Rows(TableFiles.of(paths, columns))        # columns of Parquet or Feather files, which make one table
    Rows(pixels, scale=1 / 255)                # bytes that stay bytes, whatever holds them, and are read as 0 to 1
    Dataset(rows, y).of_rows(numbers)          # some of the samples, in this order; nothing is read for it

What `of` says of a file (that it is one, its shape, its type) can be relied on. The numbers themselves are read, and
checked, when they are needed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from math import prod
from typing import Any, ClassVar, final

import numpy as np
import numpy.typing as npt

from dist_relu.core.array_checks import element, first_where
from dist_relu.core.arrays import Array
from dist_relu.errors import DataError

_BLOCK_BYTES = 1 << 23


class Storage(ABC):
    """A storage holds rows of numbers, in a file or several.  It is pickled as its description, and opened on demand.

    shape: (N, ...).  dtype: of what it holds: floats, integers or bool, of at most 64 bits.
    backend: the name of the only one whose workers can read it; None where all can.
    """

    backend: ClassVar[str | None] = None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @abstractmethod
    def memory(self) -> Array | None:
        """Return all of it as memory to read from, (N, ...), where a file can be mapped; otherwise None.

        Raises `DataError` where the file is not there, or not what it was.
        """

    @abstractmethod
    def bring(self, numbers: Array) -> bool:
        """Have rows brought into the page cache, and don't wait for it; tells whether they seem to be there already."""

    @abstractmethod
    def read(self, numbers: Array) -> Array:
        """Return rows by their numbers (n,), as (n, ...) of `dtype`.  Raises `DataError`."""


@final
class Rows:
    """Rows look like an array of the numbers that a model gets of them, and are read where these are needed.

    storage: of which they are rows.  numbers: (N,) int64, which of them, in this order; None for all.
    scale: what is stored times this, as float32, is what is read; None for what is stored as it is.
    shape: (N, ...).  dtype: of what is read.
    """

    def __init__(self, storage: Storage | Array, *, scale: float | None = None, numbers: Array | None = None) -> None:
        """storage: an array is not copied, and must not change."""
        self.storage, self.numbers = storage, numbers
        self.scale = None if scale is None else float(np.float32(scale))
        num_rows = storage.shape[0] if numbers is None else len(numbers)
        self.shape: tuple[int, ...] = (num_rows, *storage.shape[1:])
        is_float32 = scale is not None or storage.dtype == np.float16
        self.dtype: np.dtype[Any] = np.dtype(np.float32) if is_float32 else storage.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        scaled = "" if self.scale is None else f", {self.storage.dtype} times {self.scale:.4g}"
        return f"Rows(shape {self.shape}, {self.dtype}{scaled})"

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def array(self) -> Array | None:
        """The array that they are, as it is; None where they are anything else."""
        is_array = isinstance(self.storage, np.ndarray) and self.numbers is None and self.scale is None
        return self.storage if is_array else None  # type: ignore[return-value]

    def take(self, numbers: Array) -> Rows:
        """Some of the rows, by numbers (n,), in this order; of an array a copy, of others nothing is read."""
        if isinstance(self.storage, np.ndarray):
            assert self.numbers is None
            return Rows(self.storage[numbers], scale=self.scale)
        numbers = np.asarray(numbers, np.int64)
        return Rows(self.storage, scale=self.scale, numbers=numbers if self.numbers is None else self.numbers[numbers])

    def memory(self) -> Array | None:
        """The memory of which they are rows, see `Storage.memory`, as far as kernels can read it."""
        memory = self.storage if isinstance(self.storage, np.ndarray) else self.storage.memory()
        is_readable = memory is not None and memory.dtype != np.float16 and memory.dtype.isnative
        return memory if is_readable else None

    def bring(self, numbers: Array) -> bool:
        """Have rows brought near, by their numbers (n,), see `Storage.bring`."""
        here = numbers if self.numbers is None else self.numbers[numbers]
        return isinstance(self.storage, np.ndarray) or self.storage.bring(here)

    def read(self, numbers: Array, out: Array) -> None:
        """Read rows by their numbers (n,) into `out` (n, ...), in its dtype.

        Raises `DataError`, which names the row, for what is no finite number there.
        """
        here = numbers if self.numbers is None else self.numbers[numbers]
        stored = self.storage[here] if isinstance(self.storage, np.ndarray) else self.storage.read(here)
        with np.errstate(over="ignore"):
            out[...] = stored if self.scale is None else np.multiply(stored, np.float32(self.scale), dtype=np.float32)
        check_rows(stored, out, numbers)

    def blocks(self, dtype: npt.DTypeLike | None = None) -> Iterator[Array]:
        """All rows in their order, in blocks of some megabytes, each valid until the next.  dtype: of what is read."""
        dtype = np.dtype(dtype or self.dtype)
        num_rows = max(_BLOCK_BYTES // max(prod(self.shape[1:]) * dtype.itemsize, 1), 1)
        block = np.empty((min(num_rows, len(self)), *self.shape[1:]), dtype)
        for first in range(0, len(self), num_rows):
            numbers = np.arange(first, min(first + num_rows, len(self)))
            self.read(numbers, block[: len(numbers)])
            yield block[: len(numbers)]

    def __getitem__(self, key: Any) -> Array:
        """Read some rows, which are chosen as those of an array are: by number, slice, numbers or True and False."""
        of_rows, *others = key if isinstance(key, tuple) else (key,)
        chosen = np.arange(len(self))[of_rows]
        rows = np.empty((chosen.size, *self.shape[1:]), self.dtype)
        self.read(chosen.reshape(-1), rows)
        rows = rows.reshape(*chosen.shape, *self.shape[1:])
        return rows[(*[slice(None)] * chosen.ndim, *others)]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        """Read all of them."""
        if self.array is not None:
            return np.array(self.array, dtype, copy=copy)
        rows = np.empty(self.shape, dtype or self.dtype)
        first = 0
        for block in self.blocks(rows.dtype):
            rows[first : first + len(block)] = block
            first += len(block)
        return rows


def check_rows(stored: Array, read: Array, numbers: Array) -> None:
    """Raise `DataError` unless all numbers are finite that were read of what is stored.

    stored, read: (n, ...).  numbers: (n,), of the rows.
    """
    if stored.dtype.kind != "f" or np.isfinite(read).all():
        return
    n, *place = first_where(~np.isfinite(read))
    found, name = stored[(n, *place)], element("x", (int(numbers[n]), *place))
    if np.isfinite(found):
        raise DataError(
            f"{name} is {found}, too large for {read.dtype}. Scale the data, or build the model with dtype float64."
        )
    raise DataError(f"{name} is {found}; expected finite numbers.")

"""Arrays in files that are mapped, so that they are memory: .npy files, and datasets of HDF5.

Every process maps the file itself; the memory is the page cache of its machine, which all of them share, and which
gives way when room is needed. Of HDF5 that is so where a dataset lies in one piece; others are read through h5py.
"""

from __future__ import annotations

import mmap
import os
import socket
import weakref
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any, Self, final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.untrusted import reading
from dist_relu.data.archives import array_header
from dist_relu.data.rows import Storage
from dist_relu.errors import DataError


@final
@dataclass(frozen=True)
class NpyFile(Storage):
    """An array (N, ...) that lies in one piece in a file, from byte `offset` on."""

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, path: str | Path) -> Self:
        """The array in a .npy file.  Raises `DataError` for a file that is none, or not whole, or not of numbers."""
        path = Path(path).absolute()
        with reading(path, DataError, "a .npy file"), open(path, "rb") as file:
            shape, dtype, is_fortran = array_header(str(path), file, os.fstat(file.fileno()).st_size)
            offset = file.tell()
        check_stored(str(path), shape, dtype)
        if is_fortran and len(shape) > 1:
            raise DataError(
                f"{path} holds its columns one after another (Fortran order), so that no row lies in one piece. "
                "Write it again: np.save(path, np.ascontiguousarray(x))."
            )
        return cls(path, offset, shape, dtype)

    def memory(self) -> Array | None:
        return self._mapped.array

    def bring(self, numbers: Array) -> bool:
        return self._mapped.bring(numbers)

    def read(self, numbers: Array) -> Array:
        return self._mapped.read(numbers)

    @cached_property
    def _mapped(self) -> MappedFile:
        return MappedFile(self.path, self.offset, self.shape, self.dtype)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_mapped"}


@final
@dataclass(frozen=True)
class Hdf5Dataset(Storage):
    """A dataset (N, ...) in an HDF5 file.  name: of the dataset."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, path: str | Path, name: str) -> Self:
        """Raises `DataError` for a file that is none, and where there is no such dataset in it, or not of numbers."""
        path = Path(path).absolute()
        with reading(path, DataError, "an HDF5 file"), h5py().File(path, "r") as file:
            found = file.get(name)
            if not hasattr(found, "dtype") or not hasattr(found, "shape"):
                raise DataError(f"{path} has no dataset {name!r}; it has {', '.join(map(str, file)) or 'nothing'}.")
            shape, dtype = tuple(found.shape or ()), found.dtype
        check_stored(f"{path}: {name}", shape, dtype)
        return cls(path, name, shape, dtype)

    def memory(self) -> Array | None:
        return None if self._mapped is None else self._mapped.array

    def bring(self, numbers: Array) -> bool:
        return self._mapped is None or self._mapped.bring(numbers)

    def read(self, numbers: Array) -> Array:
        if self._mapped is not None:
            return self._mapped.read(numbers)
        with reading(self.path, DataError, "an HDF5 file"):
            different, places = np.unique(numbers, return_inverse=True)  # h5py wants them in order, each once
            first, stop = int(different[0]), int(different[-1]) + 1
            if stop - first == len(different):
                return np.asarray(self._dataset[first:stop])[places]
            return np.asarray(self._dataset[different])[places]

    @cached_property
    def _dataset(self) -> Any:
        check_there(self.path)
        with reading(self.path, DataError, "an HDF5 file"):
            dataset = h5py().File(self.path, "r")[self.name]
            if (dataset.shape, dataset.dtype) != (self.shape, self.dtype):
                raise DataError(f"{self.path}: {self.name} has changed; expected {self.dtype} of shape {self.shape}.")
            return dataset

    @cached_property
    def _mapped(self) -> MappedFile | None:
        dataset = self._dataset
        with reading(self.path, DataError, "an HDF5 file"):
            offset = None if dataset.chunks or dataset.external or dataset.is_virtual else dataset.id.get_offset()
        return None if offset is None else MappedFile(self.path, offset, self.shape, self.dtype)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_dataset", "_mapped")}


def check_stored(where: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise `DataError` unless rows of such an array can be samples."""
    if dtype.kind not in "fiub" or dtype.itemsize > 8:
        raise DataError(f"{where} has dtype {dtype}; expected floats or integers of at most 64 bits, or bool.")
    if len(shape) < 2:
        raise DataError(f"{where} has shape {shape}; expected samples along the first axis: (N, features).")
    if not prod(shape):
        raise DataError(f"The data set is empty: {where} has shape {shape}.")


def check_there(path: Path) -> None:
    """Raise `DataError`, which names the machine, unless there is a file."""
    if not path.is_file():
        raise DataError(
            f"{path} is not there on {socket.gethostname()}. Every machine with workers reads the samples itself: put "
            "the file where all of them have it under this name, or pass the samples as an array."
        )


@final
class MappedFile:
    """An array in a file is mapped.  array: (N, ...), only to be read."""

    def __init__(self, path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Raises `DataError` where the file is not there, or shorter than it was."""
        check_there(path)
        self._offset, self._row_bytes = offset, prod(shape[1:]) * dtype.itemsize
        with reading(path, DataError, "an array"):
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - as long as the array
            end = offset + prod(shape) * dtype.itemsize
            if os.fstat(self._file.fileno()).st_size < end:  # to read behind its end would be fatal
                self._file.close()
                raise DataError(f"{path} has changed: it is shorter than the {end:,} bytes that it had.")
            mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
            mapped.madvise(mmap.MADV_RANDOM)  # nobody wants the neighbours of a row
        weakref.finalize(self, self._file.close)
        self.array: Array = np.frombuffer(mapped, dtype, prod(shape), offset).reshape(shape)

    def read(self, numbers: Array) -> Array:
        """Copy rows by their numbers (n,)."""
        self.bring(numbers)
        rows: Array = self.array[numbers]
        return rows

    def bring(self, numbers: Array) -> bool:
        """See `Storage.bring`."""
        descriptor, row, are_there = self._file.fileno(), bytearray(self._row_bytes), True
        for place in (self._offset + numbers * self._row_bytes).tolist():
            try:
                is_there = os.preadv(descriptor, [row], place, os.RWF_NOWAIT) == self._row_bytes
            except BlockingIOError:
                is_there = False
            except OSError:  # a file system that can't tell
                return True
            if not is_there:
                are_there = False
                os.posix_fadvise(descriptor, place, self._row_bytes, os.POSIX_FADV_WILLNEED)
        return are_there


def h5py() -> ModuleType:
    try:
        import h5py
    except ImportError:
        raise DataError("HDF5 files are read by h5py: pip install 'dist_relu[hdf5]'.") from None
    return h5py  # type: ignore[no-any-return]

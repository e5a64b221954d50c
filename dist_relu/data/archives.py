"""The arrays in .npz and .npy files, without ever unpickling anything."""

from __future__ import annotations

import io
import os
import stat
import struct
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any, final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.untrusted import read_exactly, read_up_to, reading
from dist_relu.data.idx import DEFLATE_RATIO, check_room
from dist_relu.errors import DataError

_MAGIC = b"\x93NUMPY"
_MAX_DIMS = 32
_FORMS = {(1, 0): (np.lib.format.read_array_header_1_0, 2), (2, 0): (np.lib.format.read_array_header_2_0, 4)}
"""What reads the header of each version of NumPy's format, and how many bytes tell the length of its text."""

_MOST_TEXT_BYTES = 10_000
"""NumPy takes no more either, but reads them first."""

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_HEADER_BYTES = 30
_UTF8 = 0x800
_MOST_DESCRIPTOR_BYTES = 24
"""What may follow a member: its sizes, where they were not known before."""


@final
@dataclass(frozen=True)
class Arrays:
    """The arrays of an open .npz file by their names, or that of a .npy file as "x"; each is read when it is wanted."""

    path: Path
    names: list[str]
    _file: IO[bytes]
    _archive: zipfile.ZipFile | None
    _size_bytes: int

    def read(self, name: str) -> Array:
        """One of the arrays.  Raises `DataError` where it is none of numbers or text, or not whole."""
        where = f"{self.path}: {name}"
        if self._archive is None:
            return _read(where, self._file, self._size_bytes)
        with reading(where, DataError, "an array"):
            if self.names.count(name) > 1:
                raise DataError(f"{self.path} holds {name} more than once.")
            member = self._archive.getinfo(f"{name}.npy")
            if member.compress_type not in _METHODS:
                raise DataError(f"{where} is packed in a way that np.savez and np.savez_compressed don't use.")
            if member.file_size > self._size_bytes * DEFLATE_RATIO:
                raise DataError(f"{where} announces {member.file_size} bytes, more than the file can hold.")
            with self._archive.open(member) as stream:
                return _read(where, stream, member.file_size)


@contextmanager
def open_arrays(path: Path) -> Iterator[Arrays]:
    """Look into a .npz or .npy file.  Raises `DataError` for any other."""
    with reading(path, DataError, "a .npz or .npy file"), open(path, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path} is no regular file, of which all parts can be read; copy it into one.")
        size_bytes = status.st_size
        if file.peek(len(_MAGIC)).startswith(_MAGIC):
            yield Arrays(path, ["x"], file, None, size_bytes)
            return
        with zipfile.ZipFile(file) as archive:
            _check_whole(path, archive, file)
            names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
            yield Arrays(path, names, file, archive, size_bytes)


def read_numpy(path: Path) -> dict[str, Array]:
    """The arrays of a .npz file by name, or that of a .npy file as "x".  Raises `DataError`."""
    with open_arrays(path) as arrays:
        return {name: arrays.read(name) for name in arrays.names}


def array_in(content: bytes, where: str) -> Array:
    """The array in the content of a .npy file.  where: it is from, for messages.  Raises `DataError`."""
    with reading(where, DataError, "a .npy file"):
        if not content.startswith(_MAGIC):
            raise DataError(f"{where} is no .npy file, as np.save writes it.")
        return _read(where, io.BytesIO(content), len(content))


def _check_whole(path: Path, archive: zipfile.ZipFile, file: IO[bytes]) -> None:
    """Raise `DataError` unless the members lie one behind the other, under the names that the directory has for them.

    The directory has no checksum: a name that it lost would be missed by nobody.
    """
    end, most_bytes = 0, 0
    for member in sorted(archive.infolist(), key=lambda one: one.header_offset):
        file.seek(member.header_offset)
        name_bytes, extra_bytes = struct.unpack("<26x2H", read_up_to(file, _HEADER_BYTES))
        name = member.orig_filename.encode("utf-8" if member.flag_bits & _UTF8 else "cp437")
        if not end <= member.header_offset <= end + most_bytes or bytes(read_up_to(file, name_bytes)) != name:
            break
        end = member.header_offset + _HEADER_BYTES + name_bytes + extra_bytes + member.compress_size
        most_bytes = _MOST_DESCRIPTOR_BYTES
    else:
        if end <= archive.start_dir <= end + most_bytes:
            return
    raise DataError(f"{path} is damaged: its directory is not that of what is in it.")


def array_header(where: str, stream: IO[bytes], size_bytes: int) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """Shape and type of the array in a stream of so many bytes, in the form of numpy.lib.format, which is behind it.

    Returns besides whether it lies in Fortran order.  Raises `DataError`.
    """
    version = np.lib.format.read_magic(stream)
    if version not in _FORMS:
        raise DataError(f"{where} is of version {version} of NumPy's format; expected 1.0 or 2.0.")
    read_header, length_bytes = _FORMS[version]
    length = read_exactly(stream, length_bytes)
    text_bytes = int.from_bytes(length, "little")
    if text_bytes > _MOST_TEXT_BYTES:
        raise DataError(f"{where} announces a header of {text_bytes:,} bytes; expected at most {_MOST_TEXT_BYTES:,}.")
    with warnings.catch_warnings(action="ignore"):  # headers of Python 2, and what is odd in what Python parses
        shape, fortran_order, dtype = read_header(io.BytesIO(length + read_exactly(stream, text_bytes)))
    if dtype.hasobject:
        raise DataError(f"{where} is an array of Python objects; expected numbers.")
    if not dtype.itemsize:
        raise DataError(f"{where} has dtype {dtype}, whose elements hold nothing; expected numbers.")
    if len(shape) > _MAX_DIMS or any(type(n) is not int or n < 0 for n in shape):
        raise DataError(f"{where} announces the shape {shape}; expected at most {_MAX_DIMS} numbers of at least 0.")
    content_bytes = prod(shape) * dtype.itemsize
    header_bytes = stream.tell()
    announced = f"its header, {dtype} of shape {shape}, announces {header_bytes + content_bytes}"
    if header_bytes + content_bytes != size_bytes:
        raise DataError(f"{where} is not whole: {size_bytes} bytes; {announced}.")
    return shape, dtype, fortran_order


def _read(where: str, stream: IO[bytes], size_bytes: int) -> Array:
    """The array in a stream of so many bytes, in the form of numpy.lib.format."""
    shape, dtype, fortran_order = array_header(where, stream, size_bytes)
    content_bytes = prod(shape) * dtype.itemsize
    check_room(where, content_bytes)
    content = read_up_to(stream, content_bytes)
    if len(content) < content_bytes or stream.read(1):
        raise DataError(f"{where} is not whole: its header, {dtype} of shape {shape}, announces {size_bytes} bytes.")
    return np.ndarray(shape, dtype, content, order="F" if fortran_order else "C")

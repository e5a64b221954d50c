"""The IDX format of the MNIST files (LeCun, Cortes, Burges: "The MNIST database"), plain or gzipped."""

from __future__ import annotations

import gzip
import os
from math import prod
from pathlib import Path
from typing import IO, cast

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.machine import available_memory_bytes
from dist_relu.core.untrusted import read_up_to, reading
from dist_relu.errors import DataError

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_DIMS = 32
_GZIP = b"\x1f\x8b"

DEFLATE_RATIO = 1032
"""The most bytes that one byte of a deflated stream can stand for: 258 in each two bits."""


def check_room(where: object, size_bytes: int) -> None:
    """Raise `DataError` where memory is short for so much, which a small file may announce and hold, as zeros."""
    available = available_memory_bytes()
    if size_bytes > available:
        raise DataError(f"{where} unpacks to {size_bytes:,} bytes, but only {available:,} bytes of memory are left.")


def read_idx(path: Path) -> Array:
    """The array in an IDX file, in native byte order.  Raises `DataError` for a file that is none, or not whole.

    Of a gzipped file no more is unpacked than its header announces.
    """
    with reading(path, DataError, "an IDX file"), open(path, "rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        if file.peek(2)[:2] == _GZIP:
            with gzip.open(file) as unpacked:
                most_bytes = size_bytes * DEFLATE_RATIO
                return _read(path, cast("IO[bytes]", unpacked), most_bytes, f"at most {most_bytes} bytes")
        return _read(path, file, size_bytes, f"{size_bytes} bytes")


def _read(path: Path, stream: IO[bytes], most_bytes: int, most: str) -> Array:
    """The array in a stream of at most so many bytes, which are `most` in words."""
    start = stream.read(4)
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in _DTYPES:
        raise DataError(f"{path} is not an IDX file: it begins with {start.hex(' ') or 'nothing'}.")
    dtype, num_dims = np.dtype(_DTYPES[start[2]]), start[3]
    if not 1 <= num_dims <= _MAX_DIMS:
        raise DataError(f"{path} announces an array of {num_dims} dimensions; expected 1 to {_MAX_DIMS}.")
    lengths = read_up_to(stream, 4 * num_dims)
    if len(lengths) < 4 * num_dims:
        raise DataError(f"{path} is truncated: {4 + len(lengths)} bytes, not even its header.")
    shape = tuple(int(n) for n in np.frombuffer(lengths, ">u4"))
    header_bytes, content_bytes = 4 + 4 * num_dims, prod(shape) * dtype.itemsize
    announced = f"its header, shape {shape}, announces {header_bytes + content_bytes}"
    if header_bytes + content_bytes > most_bytes:
        raise DataError(f"{path} is truncated: {most}; {announced}.")
    check_room(path, content_bytes)
    content = read_up_to(stream, content_bytes)
    if len(content) < content_bytes:
        raise DataError(f"{path} is truncated: {header_bytes + len(content)} bytes; {announced}.")
    if stream.read(1):
        raise DataError(f"{path} is too long: {announced} bytes, and more follow.")
    return np.ndarray(shape, dtype, content).astype(dtype.newbyteorder("="), copy=False)

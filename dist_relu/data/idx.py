"""The IDX format of the MNIST files (LeCun, Cortes, Burges: "The MNIST database"), plain or gzipped."""

from __future__ import annotations

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np

from dist_relu.arrays import Array
from dist_relu.errors import DataError

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: Path) -> Array:
    """The array in an IDX file, in native byte order.  Raises `DataError` for a file that is none, or not whole."""
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} can't be read: {error}.") from None
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _DTYPES:
        raise DataError(f"{path} is not an IDX file: it begins with {data[:4].hex(' ') or 'nothing'}.")
    dtype, num_dims = np.dtype(_DTYPES[data[2]]), data[3]
    header_bytes = 4 + 4 * num_dims
    if len(data) < header_bytes:
        raise DataError(f"{path} is truncated: {len(data)} bytes, not even its header.")
    shape = tuple(int(n) for n in np.frombuffer(data, ">u4", num_dims, offset=4))
    expected = header_bytes + prod(shape) * dtype.itemsize
    if len(data) != expected:
        what = "truncated" if len(data) < expected else "too long"
        raise DataError(f"{path} is {what}: {len(data)} bytes; its header, shape {shape}, announces {expected}.")
    array = np.frombuffer(data, dtype, prod(shape), offset=header_bytes).reshape(shape)
    return array.astype(dtype.newbyteorder("="))

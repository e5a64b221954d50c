"""Memory for what was decoded, as large as a data set: of a file without a name, which takes room as it is written."""

from __future__ import annotations

import mmap
import shutil
import tempfile
from math import prod
from typing import Any

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.errors import DataError


def unnamed_file(shape: tuple[int, ...], dtype: np.dtype[Any], what: str) -> Array:
    """Return an array of zeros, in the page cache, which gives way when memory is short.

    It lies where temporary files do, in $TMPDIR or /tmp, and ends with the array.
    what: its rows are those of this.  Raises `DataError` where there is no room.
    """
    size_bytes = prod(shape) * dtype.itemsize
    folder = tempfile.gettempdir()
    free_bytes = shutil.disk_usage(folder).free
    if size_bytes > free_bytes:
        raise DataError(
            f"No room for the decoded rows of {what}: {size_bytes / 1e6:,.0f} MB, but {free_bytes / 1e6:,.0f} MB are "
            f"free in {folder}. Set TMPDIR to a folder with more."
        )
    with tempfile.TemporaryFile(prefix="dist_relu-") as file:
        file.truncate(size_bytes)
        return np.frombuffer(mmap.mmap(file.fileno(), size_bytes), dtype).reshape(shape)

"""The one array type of the package, and its forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def aligned_empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """An uninitialised array that starts on a cache line."""
    dtype = np.dtype(dtype)
    size_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    memory = np.empty(size_bytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size_bytes].view(dtype).reshape(shape)


def as_rows(x: Array) -> Array:
    """(N, ..., C) as (N·..., C), the same memory.  A step of a small model does it twenty times."""
    return x if x.ndim == 2 else x.reshape(-1, x.shape[-1])

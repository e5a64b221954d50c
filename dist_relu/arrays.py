"""The one array type of the package, its forms, and whole numbers."""

from __future__ import annotations

import operator
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


def whole(name: str, value: Any, least: int = 1) -> int:
    """`value` as an int.  Raises TypeError when it is no whole number, ValueError when it is below `least`."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}={value!r}: must be a whole number.") from None
    if number < least:
        raise ValueError(f"{name}={number}: must be at least {least}.")
    return number


def whole_seed(seed: Any) -> int:
    """`seed` as an int.  Raises TypeError when it is no whole number, ValueError when it doesn't fit into 64 bits."""
    number = whole("seed", seed, 0)
    if number >= 2**64:
        raise ValueError(f"seed={number}: must be below 2^64.")
    return number

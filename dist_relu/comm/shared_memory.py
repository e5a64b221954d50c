"""Memory that the processes of a node share, and memory of a process that works alone.

A segment is a `memfd`: a file without a name, gone with the last process that maps it, however that ends. So a
`kill -9` leaks nothing, and the size of /dev/shm is no limit. Other processes of the node open it through the
creator's entry in /proc while the creator holds it. Where a single process has nobody to share with, an array can be
lent instead of copied there.
"""

from __future__ import annotations

import itertools
import mmap
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import final

import numpy as np
import numpy.typing as npt

from dist_relu.core.arrays import Array
from dist_relu.core.machine import available_memory_bytes

_SMALL_BYTES = 1 << 20
"""There is room for so much; to ask for it would take longer than to compute what is put there."""


@dataclass(frozen=True)
class Handle:
    """A handle says where any process of the same node and user finds a shared array."""

    pid: int
    descriptor: int
    inode: int
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]


@dataclass(frozen=True)
class LentHandle:
    """A handle says which array this very process finds."""

    number: int


Handles = Sequence[Handle | LentHandle]
"""Where an array that every node has a copy of is to be found, by node."""

_lent: weakref.WeakValueDictionary[int, Array] = weakref.WeakValueDictionary()
_numbers = itertools.count()


@final
class SharedArray:
    """An array of zeros that other processes of the node can map.  Raises MemoryError when there is no room.

    The memory lives as long as any array on it, in any process; it can be attached to while this object lives.
    """

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        size_bytes = max(prod(shape) * np.dtype(dtype).itemsize, 1)
        # The kernel would promise any amount, and kill somebody when the promise falls due.
        available_bytes = available_memory_bytes() if size_bytes > _SMALL_BYTES else size_bytes
        if size_bytes > available_bytes:
            raise MemoryError(
                f"No room for {size_bytes / 1e6:,.0f} MB of shared memory: {available_bytes / 1e6:,.0f} MB available."
            )
        descriptor = os.memfd_create("dist_relu", os.MFD_CLOEXEC)
        weakref.finalize(self, os.close, descriptor)
        os.truncate(descriptor, size_bytes)
        self.handle = Handle(os.getpid(), descriptor, os.fstat(descriptor).st_ino, shape, np.dtype(dtype))
        self.array = _map(descriptor, self.handle)

    @classmethod
    def copy_of(cls, source: Array, dtype: npt.DTypeLike | None = None) -> SharedArray:
        """Copy `source` into shared memory, converted to `dtype`."""
        shared = cls(source.shape, dtype or source.dtype)
        shared.array[...] = source
        return shared


@final
class LentArray:
    """An array that workers in this process read where it lies.  It lives as long as anybody has it."""

    def __init__(self, array: Array) -> None:
        self.array = array
        self.handle = LentHandle(next(_numbers))
        _lent[self.handle.number] = array


def attach(handle: Handle | LentHandle) -> Array:
    """Map the shared array behind `handle`; it stays mapped as long as the returned array lives.

    Raises OSError when it is gone, KeyError when it was lent and is gone.
    """
    if isinstance(handle, LentHandle):
        return _lent[handle.number]
    descriptor = os.open(f"/proc/{handle.pid}/fd/{handle.descriptor}", os.O_RDWR | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_ino != handle.inode:
            raise FileNotFoundError("The shared array is gone; its descriptor belongs to another file.")
        return _map(descriptor, handle)
    finally:
        os.close(descriptor)


def _map(descriptor: int, handle: Handle) -> Array:
    size = prod(handle.shape)
    memory = mmap.mmap(descriptor, max(size * handle.dtype.itemsize, 1))
    return np.frombuffer(memory, handle.dtype, size).reshape(handle.shape)

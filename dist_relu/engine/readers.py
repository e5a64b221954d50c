"""Samples that are not in memory as the model wants them, on their way into a shard's pass.

Those that lie in memory otherwise (bytes, a mapped file) are brought by kernels, so that steps can be played. All
others are read by a thread of the worker, ahead of the steps that need them.
"""

from __future__ import annotations

import queue
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from math import prod
from threading import Event, Lock, Thread
from typing import NamedTuple, final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.data.rows import Rows, check_rows
from dist_relu.kernels import stored_rows as kernels
from dist_relu.kernels.augment import gather_rows
from dist_relu.kernels.tape import in_python, until_done
from dist_relu.nn.passes import ShardPass
from dist_relu.runtime.placed_samples import Samples

_AHEAD = 3
"""So many reads, of a shard's samples each, are done before they are asked for."""


class Reader(ABC):
    """A reader brings samples of a data set into arrays of the model's dtype."""

    @abstractmethod
    def read(self, numbers: Array, first: int, stop: int, run: ShardPass, out: Array) -> None:
        """Bring the samples numbers[first:stop] into `out` (stop - first, ...), by kernels or `in_python`.

        Raises `DataError`, which names the sample, for what is no finite number.
        """

    @abstractmethod
    def ahead(self, reads: Iterable[Array]) -> AbstractContextManager[None]:
        """Return a context in which these samples, by their numbers, will be asked for, read after read."""


def reader_of(samples: Samples) -> Reader:
    """Choose the reader for samples."""
    memory = samples.rows.memory()
    return ThreadedReader(samples) if memory is None else MemoryReader(samples.rows, memory)


@final
class MemoryReader(Reader):
    """Samples lie in memory, (M, ...), of which `rows` says which and how."""

    def __init__(self, rows: Rows, memory: Array) -> None:
        self._rows, self._memory = rows, memory.reshape(len(memory), -1)
        self._is_checked = memory.dtype.kind != "f" or isinstance(rows.storage, np.ndarray)

    def read(self, numbers: Array, first: int, stop: int, run: ShardPass, out: Array) -> None:
        rows, target = self._rows, out.reshape(len(out), prod(out.shape[1:]))
        wanted = numbers
        if rows.numbers is not None:
            numbers = run.scratch("chosen", (stop - first,), np.int64)
            kernels.choose(rows.numbers, wanted, first, stop, numbers)
            first, stop = 0, stop - first
        if rows.scale is None:
            gather_rows(self._memory, numbers, first, stop, target)
        else:
            kernels.gather_scaled(self._memory, numbers, first, stop, rows.scale, target)
        if not self._is_checked:
            until_done(kernels.find_no_number, target, attend=partial(self._refuse, numbers, first, stop, target))

    def _refuse(self, numbers: Array, first: int, stop: int, read: Array, _: int) -> None:
        here = numbers[first:stop]
        check_rows(self._memory[here], read, here)

    def ahead(self, reads: Iterable[Array]) -> AbstractContextManager[None]:
        return nullcontext()


class _Read(NamedTuple):
    """Samples have been read, or could not be.  numbers: (n,), theirs; none of them at the end of all reads."""

    numbers: Array
    rows: Array
    error: Exception | None = None


@final
class ThreadedReader(Reader):
    """Samples are read by a thread, in the order in which it was said that they would be asked for; others at once."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self._lock = Lock()  # one reads the files at a time
        self._done: queue.Queue[_Read] | None = None
        self._next: _Read | None = None

    def read(self, numbers: Array, first: int, stop: int, run: ShardPass, out: Array) -> None:
        in_python(partial(self._take, numbers, first, stop, out))

    @contextmanager
    def ahead(self, reads: Iterable[Array]) -> Iterator[None]:
        done: queue.Queue[_Read] = queue.Queue(_AHEAD)
        is_over = Event()
        thread = Thread(target=self._read_all, args=(reads, done, is_over), name="dist_relu reader", daemon=True)
        self._done, self._next = done, None
        thread.start()
        try:
            yield
        finally:
            self._done = None
            is_over.set()
            while thread.is_alive():  # it may wait for room
                with suppress(queue.Empty):
                    done.get_nowait()
                thread.join(0.001)

    def _take(self, numbers: Array, first: int, stop: int, out: Array) -> None:
        wanted = numbers[first:stop]
        if self._done is None:
            self._read_now(wanted, out)
            return
        if self._next is None:
            self._next = self._done.get()
        if not np.array_equal(self._next.numbers, wanted):
            self._read_now(wanted, out)
            return
        (_, rows, error), self._next = self._next, None
        if error is not None:
            raise error
        out[...] = rows

    def _read_now(self, wanted: Array, out: Array) -> None:
        with self._lock:
            self._samples.rows.read(wanted, out)

    def _read_all(self, reads: Iterable[Array], done: queue.Queue[_Read], is_over: Event) -> None:
        """Read ahead; what goes wrong is raised where the samples are asked for."""
        for wanted in reads:
            if is_over.is_set():
                return
            rows = np.empty((len(wanted), *self._samples.shape[1:]), self._samples.dtype)
            error = None
            try:
                self._read_now(wanted, rows)
            except Exception as caught:  # libraries raise anything
                error = caught
            done.put(_Read(wanted, rows, error))
        done.put(_Read(np.empty(0, np.int64), np.empty(0)))

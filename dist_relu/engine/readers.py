"""Samples that are not in memory as the model wants them, on their way into a shard's pass.

Those that lie in memory otherwise (bytes, a mapped file) are brought by kernels, so that steps can be played. All
others are read by a thread of the worker, ahead of the steps that need them.
"""

from __future__ import annotations

import queue
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from itertools import chain
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
_ROWS_AHEAD = 4096
"""So many rows of a mapped file are asked of the disk before steps need them."""
_STEPS_UNSEEN = 64
"""So many steps nobody looks at the page cache, when what a step needs was all there."""
_PAUSE_S = 0.005


class ComingSteps(NamedTuple):
    """These steps come next, and it is known what they read.

    num_steps: how many.  reads: of step i of them, the numbers of samples (n,), read after read, as they will be asked
    for.  num_done: so many steps are complete.
    """

    num_steps: int
    reads: Callable[[int], Sequence[Array]]
    num_done: Callable[[], int]


class Reader(ABC):
    """A reader brings samples of a data set into arrays of the model's dtype."""

    @abstractmethod
    def read(self, numbers: Array, first: int, stop: int, run: ShardPass, out: Array) -> None:
        """Bring the samples numbers[first:stop] into `out` (stop - first, ...), by kernels or `in_python`.

        Raises `DataError`, which names the sample, for what is no finite number.
        """

    @abstractmethod
    def ahead(self, steps: ComingSteps) -> AbstractContextManager[None]:
        """Return a context in which these steps are taken."""


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

    def ahead(self, steps: ComingSteps) -> AbstractContextManager[None]:
        if isinstance(self._rows.storage, np.ndarray):
            return nullcontext()
        return _thread(partial(self._bring, steps))

    def _bring(self, steps: ComingSteps, is_over: Event) -> None:
        """Have the page cache filled ahead of the steps; hardly more than look now and then where it is full."""
        number = 0
        while number < steps.num_steps:
            num_done = steps.num_done()
            number = max(number, num_done)
            wanted = np.concatenate([np.empty(0, np.int64), *steps.reads(min(number, steps.num_steps - 1))])
            if (number - num_done) * len(wanted) > _ROWS_AHEAD and number > num_done + 1:
                if is_over.wait(_PAUSE_S):
                    return
            elif self._rows.bring(wanted):
                number += _STEPS_UNSEEN
            else:
                number += 1
            if is_over.is_set():
                return


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
    def ahead(self, steps: ComingSteps) -> Iterator[None]:
        done: queue.Queue[_Read] = queue.Queue(_AHEAD)
        self._done, self._next = done, None
        with _thread(partial(self._read_all, steps, done), partial(_make_room, done)):
            try:
                yield
            finally:
                self._done = None

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

    def _read_all(self, steps: ComingSteps, done: queue.Queue[_Read], is_over: Event) -> None:
        """Read ahead; what goes wrong is raised where the samples are asked for."""
        for wanted in chain.from_iterable(map(steps.reads, range(steps.num_steps))):
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


@contextmanager
def _thread(work: Callable[[Event], object], make_room: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Let a thread work meanwhile.  The event that it gets says that it shall end.  make_room: see `_make_room`."""
    is_over = Event()
    thread = Thread(target=work, args=(is_over,), name="dist_relu reader", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        while thread.is_alive():
            make_room()
            thread.join(0.001)


def _make_room(done: queue.Queue[_Read]) -> None:
    """Take what nobody wants any more, so that a thread that waits for room sees that it shall end."""
    with suppress(queue.Empty):
        done.get_nowait()

"""Marks say from which moment on a worker does what: some 30 ns each, taken by compiled code.

A phase lasts until the next mark. Waiting interrupts a phase, which is resumed behind it, and so does a sum between
nodes that begins while a pass goes on. Nobody decides by marks, so steps with them end with the same bits. They are
calls of kernels, and played with the rest of a step (`dist_relu.kernels.tape`).

Marks and messages are noted in memory of the worker alone, and looked at when its steps are taken. Their time is that
of `time.monotonic_ns`, which the processes of a machine share; clocks of several are compared by
`dist_relu.comm.clocks`.
"""

from __future__ import annotations

from time import monotonic_ns
from typing import Any, final

import numpy as np
from numba.core import types

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import kernel

PASS, GATHER, FORWARD, LOSS, BACKWARD, ADD, SUM, WAIT, EXCHANGE, UPDATE, BETWEEN = range(11)
"""What a worker does: in a step, pass over its samples, of which may be told apart that it gathers them, goes forward,
looks at the loss, goes backward and adds what its shards have left; add what the workers of its node have left; wait
for these; wait for other nodes; update its part of the parameters. And what comes between two steps."""

NUM_PHASES = BETWEEN + 1
_RESUME, _BACK, _BUSY, _STEP = range(NUM_PHASES, NUM_PHASES + 4)

MARK = np.dtype([("ns", np.int64), ("code", np.int64)])
MESSAGE = np.dtype([(name, np.int64) for name in ("ns", "is_sent", "rank", "tag", "size_bytes")])
"""A message that was handed over to be sent to a rank, or has come from it."""

_NUMBER_BITS, _SHARD_BITS = 8, 24
_NUM, _SECONDS, _EVERY, _LEFT, _IS_TIMED, _HEAD = 0, 1, 3, 4, 5, 6
"""Words of the memory: how many marks there are; where the system tells the time, two words; of how many steps one is
timed, how many are left until then, and whether the present one is. Behind the head are marks."""

_CLOCK_MONOTONIC, _CLOCK_THREAD_CPUTIME_ID = 1, 3
_clock_gettime: Any = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.intp))


@kernel
def _mark(memory: Array, clock: int, code: int) -> None:
    """Note the time of a clock, and a code; where there is no room left, only that there would be one mark more."""
    place = _HEAD + 2 * memory[_NUM]
    if place + 1 < memory.shape[0]:
        _clock_gettime(clock, memory.ctypes.data + _SECONDS * memory.itemsize)
        memory[place] = memory[_SECONDS] * 1_000_000_000 + memory[_SECONDS + 1]
        memory[place + 1] = code
    memory[_NUM] += 1


@kernel
def _begin_step(memory: Array) -> None:
    """Note that a step begins, and before it, if this is one that is timed, how long the thread was on a processor."""
    memory[_LEFT] -= 1
    memory[_IS_TIMED] = memory[_LEFT] <= 0
    if memory[_IS_TIMED]:
        memory[_LEFT] = memory[_EVERY]
        _mark(memory, _CLOCK_THREAD_CPUTIME_ID, _BUSY)
    _mark(memory, _CLOCK_MONOTONIC, _STEP)


@kernel
def _note_busy(memory: Array) -> None:
    """Note how long the thread was on a processor, once in a step that is timed."""
    if memory[_IS_TIMED]:
        memory[_IS_TIMED] = 0
        _mark(memory, _CLOCK_THREAD_CPUTIME_ID, _BUSY)


@final
class Marks:
    """Takes the marks of a worker, at most `capacity` of them between two `begin`.

    Of some steps it is also noted how long the thread was on a processor, which takes the system half a microsecond.
    """

    def __init__(self, capacity: int) -> None:
        self._memory = np.zeros(_HEAD + 2 * capacity, np.int64)
        self._messages: list[tuple[int, int, int, int, int]] = []

    @property
    def capacity(self) -> int:
        return (len(self._memory) - _HEAD) // 2

    def begin(self, timed_every: int = 1) -> None:
        """Forget all marks.  timed_every: of how many steps one is timed."""
        self._memory[_NUM] = self._memory[_LEFT] = 0
        self._memory[_EVERY] = timed_every
        self._messages = []

    def enter(self, phase: int, number: int = 0, shard: int = 0) -> None:
        """A phase begins.  number: of the layer, or what else there are several of.  shard: that is passed over."""
        _mark(self._memory, _CLOCK_MONOTONIC, phase | number << _NUMBER_BITS | shard << _SHARD_BITS)

    def begin_step(self) -> None:
        """A step begins, with its passes."""
        _begin_step(self._memory)

    def note_busy(self) -> None:
        """The passes of a step end: note for how long this thread was on a processor, if the step is timed."""
        _note_busy(self._memory)

    def resume(self) -> None:
        """A wait is over."""
        _mark(self._memory, _CLOCK_MONOTONIC, _RESUME)

    def back_to_pass(self) -> None:
        """A sum that has interrupted a pass is over."""
        _mark(self._memory, _CLOCK_MONOTONIC, _BACK)

    def note_sent(self, rank: int, tag: int, size_bytes: int) -> None:
        """Note a message that is handed over to be sent."""
        self._messages.append((monotonic_ns(), 1, rank, tag, size_bytes))

    def note_received(self, rank: int, tag: int, size_bytes: int) -> None:
        """Note a message that has come."""
        self._messages.append((monotonic_ns(), 0, rank, tag, size_bytes))

    def take(self) -> tuple[Array, Array] | None:
        """Copy marks and messages, (n,) of `MARK` and (m,) of `MESSAGE`; None where there was too little room."""
        num_words = 2 * int(self._memory[_NUM])
        if num_words > len(self._memory) - _HEAD:
            return None
        marks = self._memory[_HEAD : _HEAD + num_words].copy().view(MARK)
        return marks, np.array(self._messages, MESSAGE)


@final
class Phases:
    """What marks come to: one phase after another, without a gap.

    begins: (n,), in ns.  phases: (n,), one of those above.  numbers, shards: (n,), see `Marks.enter`.
    steps: (n,), how many steps have begun before the end of each, so that those of the first step have 1.
    first_of_steps: (steps,), the place of the first phase of each.
    busy_ns, pass_ns: of the steps that were timed: for how long the thread was on a processor in the passes up to the
    first sum, and how long these took.
    """

    def __init__(self, marks: Array) -> None:
        """marks: (m,) of `MARK`."""
        kinds = marks["code"] & ((1 << _NUMBER_BITS) - 1)
        is_busy = kinds == _BUSY
        codes = marks["code"][~is_busy]
        kinds = kinds[~is_busy]
        self.begins: Array = marks["ns"][~is_busy]
        starts = kinds == _STEP
        codes = np.where(starts, PASS, codes)
        codes = _resolved(codes, kinds == _BACK, np.isin(kinds, (SUM, WAIT, EXCHANGE, _RESUME, _BACK)))
        codes = _resolved(codes, kinds == _RESUME, np.isin(kinds, (WAIT, EXCHANGE, _RESUME)))
        self.phases: Array = codes & ((1 << _NUMBER_BITS) - 1)
        self.numbers: Array = codes >> _NUMBER_BITS & ((1 << (_SHARD_BITS - _NUMBER_BITS)) - 1)
        self.shards: Array = codes >> _SHARD_BITS
        self.steps: Array = np.cumsum(starts)
        self.first_of_steps: Array = np.flatnonzero(starts)
        self.busy_ns, self.pass_ns = _first_busy(marks, is_busy)

    @property
    def durations(self) -> Array:
        """How long each phase took, in ns; the last one has no end, and takes no time."""
        return np.diff(self.begins, append=self.begins[-1:])


def _resolved(codes: Array, is_back: Array, is_passing: Array) -> Array:
    """Give marks that lead back the code of the last one before them that does not pass."""
    last = np.maximum.accumulate(np.where(is_passing, 0, np.arange(len(codes))))
    return np.where(is_back, codes[last], codes)


def _first_busy(marks: Array, is_busy: Array) -> tuple[Array, Array]:
    """Tell how long the passes of steps that were timed took, on a processor and in all."""
    places = np.flatnonzero(is_busy)
    begins = places[np.isin(places + 1, np.flatnonzero(marks["code"] == _STEP))]
    ends = places[~np.isin(places, begins)]
    num_steps = min(len(begins), len(ends))
    begins, ends = begins[:num_steps], ends[:num_steps]
    # A step begins right behind the first of the two marks, and its passes end right before the mark behind the other.
    after = np.minimum(ends + 1, len(marks) - 1)
    return marks["ns"][ends] - marks["ns"][begins], marks["ns"][after] - marks["ns"][begins + 1]

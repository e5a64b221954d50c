"""What Python asks of kernels, step after step, is recorded once and then played by one compiled loop.

A step of training calls the same kernels with the same arrays every time: only what lies in the arrays differs. While a
tape records, Python does its work as ever, and for every call of a kernel the tape notes the address of its machine
code, and its arguments as they are passed by the calling convention. `play` makes the same calls one after another,
without the interpreter and without its lock, at some 6 ns each (`dist_relu.kernels.calls`). Who calls kernels need not
know of any of this.

What must be Python goes through `in_python`, and stands on the tape as a place where the loop stops for it. A kernel
that returns something says that it has not done yet: see `until_done`.

A tape knows nothing of what Python does to the contents of arrays, or of numbers that differ from step to step. So it
is recorded twice, and trusted when both came out alike (`Tapes`). Where work is done to other arrays each time, such as
one part after another of a large one, these may *move*: what a tape has of them is where in them a kernel looks.
"""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from threading import get_ident
from time import perf_counter
from typing import Any, ClassVar, NamedTuple, final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.kernels.calls import HEAD, NUM_FLOATS, RAISED, WORD_BYTES, entry_of, play_streams, put
from dist_relu.kernels.jit import Kernel

_FIRST_CALLS = 16
"""So many calls are made before the interpreter looks at the world; then twice as many, or half if that took long."""
_MOST_CALLS = 1 << 24
_LOOK_EVERY_S = 0.01
_SWITCH = "DIST_RELU_TAPES"
"""Whether anything is recorded: "on" or "off". Bits are the same without, and errors in kernels easier to find."""


def _is_on() -> bool:
    value = os.environ.get(_SWITCH, "on")
    if value not in {"on", "off"}:
        raise ValueError(f'The environment variable {_SWITCH} is {value!r}; expected "on" or "off".')
    return value == "on"


class _Call(NamedTuple):
    """A call of a kernel that has stopped the loop may be made once more, to learn why.

    arguments: None where some of them move, and are elsewhere.  attend: see `until_done`.
    """

    kernel: Kernel
    arguments: tuple[Any, ...] | None
    attend: Callable[[int], object] | None


class _Failed(Exception):
    """A kernel failed, and its arguments are not known here."""


@final
class Tape:
    """A tape has what was asked of kernels by the thread that has made it, while it recorded.

    is_whole: whether all of it can be played.  begin: the address of its first word, once it was recorded.
    """

    _current: ClassVar[Tape | None] = None

    def __init__(self, moving: Sequence[Array] = ()) -> None:
        """moving: arrays in one piece that may lie elsewhere when the tape is played, see `move`."""
        self.is_whole = True
        self._moving = [_Moving(part.ctypes.data, part.nbytes, []) for part in moving]
        self._thread = get_ident()
        self._words = array("q")
        self._stops: dict[int, _Call | Callable[[], object]] = {}  # by the number of their first word
        self._numbers: list[int] = []  # all words, but for where arrays lie that don't move
        self._arrays: list[Array] = []  # those

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record what happens meanwhile."""
        Tape._current, Kernel.listener = self, self._note
        try:
            yield
        finally:
            Tape._current = Kernel.listener = None
        self._words.extend((0, 0))
        self.begin, _ = self._words.buffer_info()

    def _aside(self, function: Callable[[], object]) -> None:
        """Call a function, with nothing of what it does on the tape."""
        Tape._current = Kernel.listener = None
        try:
            function()
        finally:
            Tape._current, Kernel.listener = self, self._note

    @classmethod
    def current(cls) -> Tape | None:
        """Return the tape that records what this thread does."""
        tape = cls._current
        return tape if tape is None or tape._thread == get_ident() else None

    def is_like(self, other: Tape) -> bool:
        """Tell whether playing one does the same as playing the other.

        Where each of them has an array of its own, it is a constant if the contents are the same.
        """
        return (
            self.is_whole
            and other.is_whole
            and self._numbers == other._numbers
            and len(self._arrays) == len(other._arrays)
            and all(map(_are_alike, self._arrays, other._arrays))
        )

    def move(self, arrays: Sequence[Array]) -> None:
        """Let what looked into the moving arrays look into these, of the same forms, until they move again."""
        for moving, now in zip(self._moving, arrays, strict=True):
            distance = now.ctypes.data - moving.place
            if distance:
                moving.place += distance
                for number in moving.words:
                    self._words[number] += distance

    def attend(self, place: int, result: int) -> int:
        """Do what the loop has stopped for; returns the place where it goes on."""
        number = (place - self.begin) // WORD_BYTES
        stop = self._stops[number]
        if not isinstance(stop, _Call):
            stop()
            return place + HEAD * WORD_BYTES
        if result == 0:
            return place  # it stopped to let the interpreter have a look at the world
        if stop.attend is None or result == RAISED:
            if stop.arguments is None:
                raise _Failed
            stop.kernel.call(*stop.arguments)
            raise RuntimeError(f"The kernel {stop.kernel.py_func.__name__} failed once, and not when it was repeated.")
        stop.attend(result)
        return place

    def in_python(self, function: Callable[[], object]) -> None:
        """Call a function, with nothing of what it does on the tape but that it is called."""
        self._aside(function)
        self.is_whole &= not self._moving  # it may know where they are now, and would not learn where they are then
        self._stops[len(self._words)] = function
        self._numbers.append(0)
        self._words.extend([0, 1] + [0] * NUM_FLOATS)

    def until_done(self, function: Any, arguments: tuple[Any, ...], attend: Callable[[int], object]) -> None:
        """See the function of this name."""
        while result := function.call(*arguments):
            self._aside(partial(attend, result))  # it may call kernels, as often as this time asks for
        self._add(function, arguments, attend)

    def _note(self, function: Kernel, arguments: tuple[Any, ...]) -> Any:
        """Call a kernel for Python, and record that."""
        result = function.call(*arguments)
        if get_ident() == self._thread:
            self.is_whole &= result is None  # Python may do anything with a number
            self._add(function, arguments, None)
        return result

    def _add(self, function: Kernel, arguments: tuple[Any, ...], attend: Callable[[int], object] | None) -> None:
        entry = entry_of(function, arguments)
        if entry is None:
            self.is_whole = False
            return
        ints: list[int] = []
        floats: list[int] = []
        arrays: list[tuple[int, Array]] = []
        put(entry.kinds, function.passed(arguments), ints, floats, self._numbers, arrays)
        first, moves = len(self._words) + HEAD, False
        for number, argument in arrays:
            which = next((i for i, moving in enumerate(self._moving) if moving.holds(ints[number])), None)
            if which is None:
                self._arrays.append(argument)
            else:
                moves = True
                self._moving[which].words.append(first + number)
                self._numbers += [which, ints[number] - self._moving[which].place]
        self._stops[len(self._words)] = _Call(function, None if moves else arguments, attend)
        self._numbers += [entry.address, *floats]
        self._words.extend([entry.address, entry.num_ints, *floats, *[0] * (NUM_FLOATS - len(floats))])
        self._words.extend(ints + [0] * (entry.num_ints - len(ints)))


@dataclass
class _Moving:
    """An array that may move lies here, and these words of a tape say where a kernel looks into it."""

    place: int
    size_bytes: int
    words: list[int]

    def holds(self, address: int) -> bool:
        return self.place <= address < self.place + self.size_bytes


def _are_alike(one: Array, other: Array) -> bool:
    """Tell whether two arrays of one form are the same, or have the same contents."""
    return one.ctypes.data == other.ctypes.data or one.tobytes() == other.tobytes()


def in_python(function: Callable[[], object]) -> None:
    """Call a function, and call it again whenever what is recorded now is played."""
    tape = Tape.current()
    if tape is None:
        function()
    else:
        tape.in_python(function)


def spoil() -> None:
    """Say that what happens now is not what happens every time: no tape of it can be played."""
    tape = Tape.current()
    if tape is not None:
        tape.is_whole = False


def until_done(function: Callable[..., int], *arguments: Any, attend: Callable[[int], object]) -> None:
    """Call a kernel until it returns 0; what else it returns goes to `attend` before it is called again."""
    tape = Tape.current()
    if tape is not None:
        tape.until_done(function, arguments, attend)
        return
    while result := function(*arguments):
        attend(result)


def play(tapes: Sequence[Tape]) -> None:
    """Play tapes one after another."""
    streams = np.array([tape.begin for tape in tapes])
    number = place = 0
    num_calls, began_s = _FIRST_CALLS, perf_counter()
    while True:
        number, place, result = play_streams(streams, number, place, num_calls)
        if number == len(streams):
            return
        place = tapes[number].attend(place, result)
        now_s = perf_counter()  # the interpreter has handled signals
        num_calls = min(num_calls * 2, _MOST_CALLS) if now_s - began_s < _LOOK_EVERY_S else max(num_calls // 2, 1)
        began_s = now_s


@final
class Tapes:
    """Work that is done again and again is recorded here, of each kind twice, and then played.

    Whatever differs from one time to the next must lie in arrays, which stay where they are or are said to move.
    """

    def __init__(self, *, after: int = 0) -> None:
        """after: so often work of a kind is done before it is recorded, which takes longer."""
        self._after = after
        self._is_on = _is_on()
        self._times: Counter[Hashable] = Counter()
        self._tapes: dict[Hashable, Tape] = {}
        self._trusted: dict[Hashable, bool] = {}

    def ready(self, kinds: Iterable[Hashable]) -> list[Tape]:
        """Return the tapes that do work of these kinds, one after another, as far as they can be trusted."""
        tapes = self._tapes
        trusted = self._trusted
        return [tapes[kind] for kind in takewhile(trusted.get, kinds)]

    def do(self, kind: Hashable, work: Callable[[], object], moving: Sequence[Array] = ()) -> None:
        """Do work of a kind: play it if there is a tape that can be trusted, or else record it.  moving: see `Tape`."""
        if not self._trusted.get(kind):
            self.record(kind, work, moving)
            return
        tape = self._tapes[kind]
        tape.move(moving)
        try:
            play([tape])
        except _Failed:
            work()

    def record(self, kind: Hashable, work: Callable[[], object], moving: Sequence[Array] = ()) -> None:
        """Do work of a kind of which there is no tape, and record it if that may be of use.  moving: see `Tape`."""
        self._times[kind] += 1
        if kind in self._trusted or self._times[kind] <= self._after or not self._is_on:
            work()
            return
        tape, before = Tape(moving), self._tapes.get(kind)
        with tape.recording():
            work()
        self._tapes[kind] = tape
        if before is not None:
            self._trusted[kind] = tape.is_like(before)
        elif not tape.is_whole:
            self._trusted[kind] = False

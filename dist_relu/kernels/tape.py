"""What Python asks of kernels, step after step, is recorded once and then played by one compiled loop.

A step of training calls the same kernels with the same arrays every time: only what lies in the arrays differs. While a
tape records, Python does its work as ever, and for every call of a kernel the tape notes the address of its machine
code, and its arguments as they are passed by the calling convention. `play` makes the same calls one after another,
without the interpreter and without its lock, at some 6 ns each. Nothing is compiled for that but the loop itself: a
call by address knows the numbers of its arguments alone (`_call`). Who calls kernels need not know of any of this.

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
from itertools import takewhile
from threading import get_ident
from time import perf_counter
from typing import Any, ClassVar, NamedTuple, final

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import Kernel, kernel

_NUM_FLOATS = 8
"""Floating-point arguments, which all fit into registers; the calling conventions of x86-64 and arm64 have eight."""
_NUM_INTS = 14, 30, 62, 126, 254
"""All other arguments; some more are passed, where a function has fewer, than it looks at."""
_HEAD = 2 + _NUM_FLOATS
"""Words of a call before its integers: address, how many integers, floating-point numbers."""
_WORD_BYTES = 8
_RAISED = -(1 << 62)
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


@intrinsic
def _word(typing_context: Any, place: Any) -> Any:
    """Load the word at an address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(builder.inttoptr(args[0], ir.IntType(64).as_pointer()))

    return types.int64(types.int64), codegen


@intrinsic
def _call(typing_context: Any, place: Any) -> Any:
    """Make the call whose words stand at an address; returns what the kernel returns, 0 for nothing.

    Integers and floating-point numbers are counted apart by the calling conventions (System V for x86-64, AAPCS64):
    the first ones of each go into registers, the other integers onto the stack, 8 bytes each. So the caller need not
    know how they are mixed. A kernel has two arguments before its own, where it leaves its result and an exception.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word, double = ir.IntType(64), ir.DoubleType()
        words = builder.inttoptr(args[0], word.as_pointer())

        def load(number: int) -> Any:
            return builder.load(builder.gep(words, [word(number)]))

        result = cgutils.alloca_once(builder, word)
        exception = cgutils.alloca_once(builder, ir.IntType(8).as_pointer())
        status = cgutils.alloca_once(builder, ir.IntType(32))
        builder.store(word(0), result)
        address, num_ints = load(0), load(1)
        floats = [builder.bitcast(load(2 + i), double) for i in range(_NUM_FLOATS)]
        end = builder.append_basic_block("end")
        switch = builder.switch(num_ints, end)
        for number in _NUM_INTS:
            block = builder.append_basic_block(f"with_{number}")
            switch.add_case(word(number), block)
            builder.position_at_end(block)
            kinds = [result.type, exception.type, *[word] * number, *[double] * _NUM_FLOATS]
            function = builder.inttoptr(address, ir.FunctionType(status.type.pointee, kinds).as_pointer())
            ints = [load(_HEAD + i) for i in range(number)]
            builder.store(builder.call(function, [result, exception, *ints, *floats]), status)
            builder.branch(end)
        builder.position_at_end(end)
        has_raised = builder.icmp_signed(">", builder.load(status), status.type.pointee(0))
        return builder.select(has_raised, word(_RAISED), builder.load(result))

    return types.int64(types.int64), codegen


@kernel
def _play(streams: Array, number: int, place: int, num_calls: int) -> tuple[int, int, int]:
    """Play streams of calls, from a place in one of them on; 0: its beginning.  At most so many calls are made.

    streams: (n,) int64, the address of the first word of each.  Returns the number of the stream and the place where
    the loop stopped, and what the kernel there has returned. The number is n when all were played.
    """
    while number < streams.shape[0]:
        place = streams[number] if place == 0 else place
        while _word(place) != 0:
            if num_calls == 0:
                return number, place, 0
            num_calls -= 1
            result = _call(place)
            if result != 0:
                return number, place, result
            place += (_HEAD + _word(place + _WORD_BYTES)) * _WORD_BYTES
        if _word(place + _WORD_BYTES) != 0:
            return number, place, 0
        number, place = number + 1, 0
    return number, place, 0


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
        number = (place - self.begin) // _WORD_BYTES
        stop = self._stops[number]
        if not isinstance(stop, _Call):
            stop()
            return place + _HEAD * _WORD_BYTES
        if result == 0:
            return place  # it stopped to let the interpreter have a look at the world
        if stop.attend is None or result == _RAISED:
            if stop.arguments is None:
                raise _Failed
            stop.kernel.call(*stop.arguments)
            raise RuntimeError(f"The kernel {stop.kernel.py_func.__name__} failed once, and not when it was repeated.")
        stop.attend(result)
        return place

    def in_python(self, function: Callable[[], object]) -> None:
        """Call a function, with nothing of what it does on the tape but that it is called."""
        Tape._current = Kernel.listener = None
        try:
            function()
        finally:
            Tape._current, Kernel.listener = self, self._note
        self.is_whole &= not self._moving  # it may know where they are now, and would not learn where they are then
        self._stops[len(self._words)] = function
        self._numbers.append(0)
        self._words.extend([0, 1] + [0] * _NUM_FLOATS)

    def until_done(self, function: Any, arguments: tuple[Any, ...], attend: Callable[[int], object]) -> None:
        """See the function of this name."""
        while result := function.call(*arguments):
            attend(result)
        self._add(function, arguments, attend)

    def _note(self, function: Kernel, arguments: tuple[Any, ...]) -> Any:
        """Call a kernel for Python, and record that."""
        result = function.call(*arguments)
        if get_ident() == self._thread:
            self.is_whole &= result is None  # Python may do anything with a number
            self._add(function, arguments, None)
        return result

    def _add(self, function: Kernel, arguments: tuple[Any, ...], attend: Callable[[int], object] | None) -> None:
        form = function, tuple(map(_form_of, arguments))
        if form not in _entries:
            _entries[form] = _Entry.of(function, arguments)
        entry = _entries[form]
        if entry is None:
            self.is_whole = False
            return
        ints: list[int] = []
        floats: list[int] = []
        arrays: list[tuple[int, Array]] = []
        _put(entry.kinds, function.passed(arguments), ints, floats, self._numbers, arrays)
        first, moves = len(self._words) + _HEAD, False
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
        self._words.extend([entry.address, entry.num_ints, *floats, *[0] * (_NUM_FLOATS - len(floats))])
        self._words.extend(ints + [0] * (entry.num_ints - len(ints)))


@dataclass
class _Moving:
    """An array that may move lies here, and these words of a tape say where a kernel looks into it."""

    place: int
    size_bytes: int
    words: list[int]

    def holds(self, address: int) -> bool:
        return self.place <= address < self.place + self.size_bytes


class _Entry(NamedTuple):
    """A kernel is called here with arguments of some types.

    kinds: of the arguments, see `_kind_of`.  num_ints: one of `_NUM_INTS`.
    """

    address: int
    kinds: Sequence[Any]
    num_ints: int

    @classmethod
    def of(cls, function: Kernel, arguments: tuple[Any, ...]) -> _Entry | None:
        """Look for it; None where there is none, or where it can't be called from here."""
        passed = function.passed(arguments)
        types_of = tuple(map(function.typeof_pyval, passed))
        address, kinds = function.address(types_of), list(map(_kind_of, types_of))
        if address is None or None in kinds:
            return None
        ints: list[int] = []
        floats: list[int] = []
        _put(kinds, passed, ints, floats, [], [])
        num_ints = next((number for number in _NUM_INTS if number >= len(ints)), None)
        return None if num_ints is None or len(floats) > _NUM_FLOATS else cls(address, kinds, num_ints)


_entries: dict[Any, _Entry | None] = {}
_ARRAY, _INT = "array", "int"


def _form_of(argument: Any) -> Hashable:
    """Tell what Numba's type of an argument depends on, in less time than that takes to be found."""
    if argument.__class__ is np.ndarray:
        return argument.dtype, argument.ndim, argument.flags.num
    if isinstance(argument, tuple):
        return tuple(map(_form_of, argument))
    form: Hashable = argument.__class__
    return form


def _kind_of(kind: Any) -> Any:
    """Tell how a type is passed: _ARRAY, _INT, the dtypes of a number and of its bits, a list for a tuple, or None."""
    if isinstance(kind, types.BaseTuple):
        kinds = list(map(_kind_of, kind))
        return None if None in kinds else kinds
    if isinstance(kind, types.Array):
        return _ARRAY
    if isinstance(kind, types.Float):
        return np.dtype(f"f{kind.bitwidth // 8}"), np.dtype(f"u{kind.bitwidth // 8}")
    return _INT if isinstance(kind, types.Integer | types.Boolean) else None


def _put(
    kinds: Sequence[Any],
    arguments: Sequence[Any],
    ints: list[int],
    floats: list[int],
    numbers: list[int],
    arrays: list[tuple[int, Array]],
) -> None:
    """Put arguments where they belong.

    numbers: gets the integers, but for where arrays lie.  arrays: get the place of that number among `ints` each.

    An array is passed as the owner of its memory and the object that it is of, of which there are none here, its size,
    that of an element, where it lies, its shape and its strides.
    """
    for kind, argument in zip(kinds, arguments, strict=True):
        if kind is _ARRAY:
            size, form = (0, 0, argument.size, argument.itemsize), argument.shape + argument.strides
            arrays.append((len(ints) + len(size), argument))
            ints.extend((*size, argument.__array_interface__["data"][0], *form))
            numbers.extend((*size, *form))
        elif kind is _INT:
            ints.append(int(argument))
            numbers.append(int(argument))
        elif kind.__class__ is list:
            _put(kind, argument, ints, floats, numbers, arrays)
        else:
            number, bits = kind
            floats.append(int(np.array(argument, number).view(bits).astype(np.uint64).view(np.int64)))


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
        number, place, result = _play(streams, number, place, num_calls)
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

"""Calls of kernels by the address of their machine code, whose arguments stand in words one behind the other.

A call by address knows the numbers of its arguments alone (`_call`), so nothing is compiled for a kernel to be called
like that. The words of a call: address, how many integers, floating-point numbers, integers.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import Kernel, kernel

NUM_FLOATS = 8
"""Floating-point arguments, which all fit into registers; the calling conventions of x86-64 and arm64 have eight."""
_NUM_INTS = 14, 30, 62, 126, 254
"""All other arguments; some more are passed, where a function has fewer, than it looks at."""
HEAD = 2 + NUM_FLOATS
"""Words of a call before its integers: address, how many integers, floating-point numbers."""
WORD_BYTES = 8
RAISED = -(1 << 62)


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
        floats = [builder.bitcast(load(2 + i), double) for i in range(NUM_FLOATS)]
        end = builder.append_basic_block("end")
        switch = builder.switch(num_ints, end)
        for number in _NUM_INTS:
            block = builder.append_basic_block(f"with_{number}")
            switch.add_case(word(number), block)
            builder.position_at_end(block)
            kinds = [result.type, exception.type, *[word] * number, *[double] * NUM_FLOATS]
            function = builder.inttoptr(address, ir.FunctionType(status.type.pointee, kinds).as_pointer())
            ints = [load(HEAD + i) for i in range(number)]
            builder.store(builder.call(function, [result, exception, *ints, *floats]), status)
            builder.branch(end)
        builder.position_at_end(end)
        has_raised = builder.icmp_signed(">", builder.load(status), status.type.pointee(0))
        return builder.select(has_raised, word(RAISED), builder.load(result))

    return types.int64(types.int64), codegen


@kernel
def play_streams(streams: Array, number: int, place: int, num_calls: int) -> tuple[int, int, int]:
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
            place += (HEAD + _word(place + WORD_BYTES)) * WORD_BYTES
        if _word(place + WORD_BYTES) != 0:
            return number, place, 0
        number, place = number + 1, 0
    return number, place, 0


class Entry(NamedTuple):
    """A kernel is called here with arguments of some types.

    kinds: of the arguments, see `_kind_of`.  num_ints: one of `_NUM_INTS`.
    """

    address: int
    kinds: Sequence[Any]
    num_ints: int

    @classmethod
    def of(cls, function: Kernel, arguments: tuple[Any, ...]) -> Entry | None:
        """Look for it; None where there is none, or where it can't be called from here."""
        passed = function.passed(arguments)
        types_of = tuple(map(function.typeof_pyval, passed))
        address, kinds = function.address(types_of), list(map(_kind_of, types_of))
        if address is None or None in kinds:
            return None
        ints: list[int] = []
        floats: list[int] = []
        put(kinds, passed, ints, floats, [], [])
        num_ints = next((number for number in _NUM_INTS if number >= len(ints)), None)
        return None if num_ints is None or len(floats) > NUM_FLOATS else cls(address, kinds, num_ints)


_entries: dict[Any, Entry | None] = {}
_ARRAY, _INT = "array", "int"


def entry_of(function: Kernel, arguments: tuple[Any, ...]) -> Entry | None:
    """Return the entry of a kernel for such arguments, as `Entry.of` does, from memory if it was asked for before."""
    form = function, tuple(map(_form_of, arguments))
    if form not in _entries:
        _entries[form] = Entry.of(function, arguments)
    return _entries[form]


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


def put(
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
            put(kind, argument, ints, floats, numbers, arrays)
        else:
            number, bits = kind
            floats.append(int(np.array(argument, number).view(bits).astype(np.uint64).view(np.int64)))

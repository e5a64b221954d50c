"""Loads and stores that order memory between processes, and the wait of a barrier on top of them."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import kernel

WORDS_PER_LINE = 16
"""int64 words between two flags: two cache lines, since processors fetch lines in pairs."""

PASSED, WAITING, ABORTED = 0, 1, 2
MEETING, CALL = 0, 1
"""Where a process notes for itself, in (2,) int64, the last meeting that it has come to, and the present call."""

_SPINS_BEFORE_YIELD = 200
_YIELDS_PER_CALL = 2000

_sched_yield = types.ExternalFunction("sched_yield", types.int32())


@intrinsic
def load_acquire(typing_context: Any, array: Any, index: Any) -> Any:
    """array[index] of an int64 array; nothing after it is read or written before it."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(_item(context, builder, signature, args), "acquire", 8, typ=ir.IntType(64))

    return types.int64(array, types.intp), codegen


@intrinsic
def store_release(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """array[index] = value in an int64 array; everything before it is seen by who loads the value."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store_atomic(args[2], _item(context, builder, signature, args), "release", 8)
        return context.get_dummy_value()

    return types.none(array, types.intp, types.int64), codegen


@intrinsic
def atomic_max(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """array[index] = max(array[index], value) in an int64 array, whoever else does the same."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.atomic_rmw("max", _item(context, builder, signature, args), args[2], "acq_rel")
        return context.get_dummy_value()

    return types.none(array, types.intp, types.int64), codegen


def _item(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    array_type = signature.args[0]
    array = context.make_array(array_type)(context, builder, args[0])
    return cgutils.get_item_pointer(context, builder, array_type, array, [args[1]], wraparound=False)


@kernel
def arrive(flags: Array, rank: int, now: Array) -> None:
    """Come to the next meeting, and say so to the other ranks.

    flags: (num_ranks * WORDS_PER_LINE,) int64, shared.  now: see `MEETING` and `CALL`.
    """
    now[MEETING] += 1
    store_release(flags, rank * WORDS_PER_LINE, now[MEETING])


@kernel
def wait_for_all(flags: Array, num_ranks: int, now: Array, abort: Array) -> int:
    """Wait until all ranks have come to the meeting, for some milliseconds at most; flags and now: as for `arrive`.

    abort: (>= 1,) int64, shared: the call to give up.
    Returns PASSED, ABORTED, or WAITING: then look after the world and wait again.
    """
    spins = 0
    for peer in range(num_ranks):
        while load_acquire(flags, peer * WORDS_PER_LINE) < now[MEETING]:
            if load_acquire(abort, 0) >= now[CALL]:
                return ABORTED
            spins += 1
            if spins > _SPINS_BEFORE_YIELD:
                _sched_yield()
                if spins > _SPINS_BEFORE_YIELD + _YIELDS_PER_CALL:
                    return WAITING
    # Peers that gave up this call may be far ahead in a later one.
    return ABORTED if load_acquire(abort, 0) >= now[CALL] else PASSED


@kernel
def give_up(abort: Array, call: int) -> None:
    """Let abort[0], int64 and shared, be at least `call`."""
    atomic_max(abort, 0, call)

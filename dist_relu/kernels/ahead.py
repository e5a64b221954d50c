"""Kernels are known, and compiled, before they are called.

Who is going to call kernels does so once for nobody (`calls_of`): no kernel runs, but it is noted which there are, and
for arguments of which types. What of that is in no cache is compiled by all processes that know of it, each of which
takes whatever nobody else is at (`compile_unclaimed`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import get_ident
from typing import Any

from dist_relu.kernels.jit import Kernel, garbage_kept

Call = tuple[Kernel, tuple[Any, ...]]
"""A kernel, and the types of its arguments."""


@contextmanager
def no_kernels(note: Callable[[Kernel, tuple[Any, ...]], object] | None = None) -> Iterator[None]:
    """Let calls of kernels in this thread do nothing meanwhile, and return None.  note: gets them, and arguments."""
    thread, before = get_ident(), Kernel.listener

    def listen(kernel: Kernel, arguments: tuple[Any, ...]) -> Any:
        if get_ident() != thread:
            return kernel.call(*arguments)
        if note:
            note(kernel, arguments)
        return None

    Kernel.listener = listen
    try:
        yield
    finally:
        Kernel.listener = before


def calls_of(work: Callable[[], object]) -> list[Call]:
    """List the kernels that some work calls, each once; none of them is called."""
    calls: dict[Call, None] = {}

    def note(kernel: Kernel, arguments: tuple[Any, ...]) -> None:
        calls[kernel, tuple(map(kernel.typeof_pyval, kernel.passed(arguments)))] = None

    with no_kernels(note):
        work()
    return list(calls)


def missing(calls: Sequence[Call]) -> list[Call]:
    """List those that are in no cache and nobody compiles yet; the others are loaded.  The largest come first."""
    found = [(kernel, types) for kernel, types in calls if kernel.is_missing(types)]
    return sorted(found, key=_size, reverse=True)


def compile_unclaimed(calls: Sequence[Call]) -> None:
    """Compile what of these kernels is in no cache and nobody else compiles."""
    with garbage_kept():
        for kernel, types in calls:
            kernel.compile_unless_busy(types)


def load(calls: Sequence[Call]) -> None:
    """Load kernels, and wait for those that others compile."""
    for kernel, types in calls:
        kernel.compile(types)


def _size(call: Call) -> int:
    """Guess how long a kernel takes to compile, so that what takes longest does not come last."""
    return len(call[0].py_func.__code__.co_code)

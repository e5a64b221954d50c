"""Kernels are compiled before they are called, different ones by different processes at once.

Who is going to call kernels does so once for nobody (`calls_of`): no kernel runs, but it is noted which there are, and
for arguments of which types. What of that is in no cache is compiled by all processes that know of it, each of which
takes whatever nobody else is at (`compile_ahead`). Where cores are left, further processes help: this module is their
program, too. They end with the list, or with the process that started them, whatever ends that.
"""

from __future__ import annotations

import importlib
import os
import pickle
import pkgutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import get_ident
from typing import Any

import dist_relu.kernels
from dist_relu.kernels.jit import Kernel

Call = tuple[Kernel, tuple[Any, ...]]
"""A kernel, and the types of its arguments."""

_PER_HELPER = 12
"""A helper takes half a second to start; that is worth so many kernels."""

_PROGRAM = """
import pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
from dist_relu.kernels.ahead import help_to_compile
help_to_compile()
"""


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


def compile_ahead(calls: Sequence[Call], num_helpers: int = 0) -> None:
    """Compile what of these kernels is in no cache and nobody else compiles, and load all others.

    num_helpers: so many processes may be started to compile, too, if it is worth that.
    """
    missing = [call for call in calls if call[0].is_missing(call[1])]
    missing.sort(key=_size, reverse=True)
    with _helpers(missing, min(num_helpers, len(missing) // _PER_HELPER)):
        for kernel, types in missing:
            kernel.compile_unless_busy(types)
    for kernel, types in calls:
        kernel.compile(types)


def _size(call: Call) -> int:
    """Guess how long a kernel takes to compile, so that what takes longest does not come last."""
    return len(call[0].py_func.__code__.co_code)


@contextmanager
def _helpers(calls: Sequence[Call], number: int) -> Iterator[None]:
    """Let further processes compile what nobody else compiles, and wait for them in the end."""
    order = pickle.dumps(sys.path) + pickle.dumps([(_name_of(kernel), types) for kernel, types in calls])
    helpers: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(number):
            with suppress(OSError):  # all goes well without them, only slower
                helpers.append(_start_helper())
                helpers[-1].stdin.write(order)  # type: ignore[union-attr]
        yield
        for helper in helpers:
            helper.wait()
    finally:
        for helper in helpers:
            helper.kill()
            helper.wait()
            helper.stdin.close()  # type: ignore[union-attr]


def _start_helper() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the process that has started it
    )


def help_to_compile() -> None:
    """Compile what the process at the other end of stdin has ordered, and end with it."""
    order = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    for module in pkgutil.iter_modules(dist_relu.kernels.__path__):
        importlib.import_module(f"{dist_relu.kernels.__name__}.{module.name}")
    kernels = {_name_of(kernel): kernel for kernel in Kernel.all}
    for name, types in order:
        if name in kernels:  # those of an activation are made when they are first used
            kernels[name].compile_unless_busy(types)


def _end_with_stdin() -> None:
    os.read(0, 1)
    os._exit(1)


def _name_of(kernel: Kernel) -> tuple[str, str]:
    code = kernel.py_func.__code__
    return code.co_filename, code.co_name

"""How kernels are compiled: the one place for compiler flags, and for who compiles.

Numba's cache on disk is not safe when several processes fill it at once (numba/numba#4807), and on a new
machine all ranks would. So a process that must compile takes a lock of the machine first: it either compiles
while the others wait, or finds in the cache what another has compiled meanwhile.
"""

from __future__ import annotations

import fcntl
import functools
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")

_LOCK_PATH = Path(tempfile.gettempdir()) / f"dist_relu-compile-{os.getuid()}.lock"
_depth = 0


@contextmanager
def _machine_lock() -> Iterator[None]:
    """Hold the compile lock; nests, because compiling a kernel compiles the kernels it calls."""
    global _depth  # noqa: PLW0603
    if _depth:
        yield
        return
    descriptor = os.open(_LOCK_PATH, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        _depth += 1
        try:
            yield
        finally:
            _depth -= 1
    finally:
        os.close(descriptor)


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a loop over arrays, once per machine and combination of argument types.

    No fast-math: reassociated sums would depend on where an array is cut, and with them the bits.
    The GIL is released, so that a process can be told to stop while it computes or waits.
    """
    dispatcher = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    compile_now = dispatcher.compile

    @functools.wraps(compile_now)
    def compile_alone(signature: Any) -> Any:
        with _machine_lock():
            return compile_now(signature)

    dispatcher.compile = compile_alone
    return cast(Callable[P, R], dispatcher)

"""How kernels are compiled: the one place for compiler flags, and for who compiles.

Numba's cache on disk is not safe when several processes fill it at once (numba/numba#4807), and on a new
machine all ranks would. So a process that must compile takes a lock of the machine first: it either compiles
while the others wait, or finds in the cache what another has compiled meanwhile.
"""

from __future__ import annotations

import fcntl
import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")

_threads_lock = threading.RLock()
_depth = 0


@contextmanager
def _machine_lock(cache: Path) -> Iterator[None]:
    """Hold the lock of a cache folder; nests, because compiling a kernel compiles the kernels it calls."""
    global _depth  # noqa: PLW0603
    with _threads_lock:
        if _depth:
            yield
            return
        cache.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(cache / "dist_relu-compile.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
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
        with _machine_lock(Path(dispatcher.stats.cache_path)):
            return compile_now(signature)

    dispatcher.compile = compile_alone
    return cast(Callable[P, R], dispatcher)

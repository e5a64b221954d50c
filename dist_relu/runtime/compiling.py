"""Kernels are compiled by several processes at once: by the workers, and by helpers where cores are left.

A helper is a process whose program this module is. It ends with its list of kernels, or with the process that started
it, whatever ends that.
"""

from __future__ import annotations

import importlib
import os
import pickle
import pkgutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import dist_relu.kernels
from dist_relu.kernels.ahead import Call, compile_unclaimed, load, missing
from dist_relu.kernels.jit import Kernel

_PER_HELPER = 12
"""A helper takes half a second to start; that is worth so many kernels."""

_PROGRAM = """
import pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
from dist_relu.runtime.compiling import help_to_compile
help_to_compile()
"""


def compile_ahead(calls: Sequence[Call], num_helpers: int = 0) -> None:
    """Compile what of these kernels is in no cache and nobody else compiles, and load all others.

    num_helpers: so many processes may be started to compile, too, if it is worth that.
    """
    wanted = missing(calls)
    with _helpers(wanted, min(num_helpers, len(wanted) // _PER_HELPER)):
        compile_unclaimed(wanted)
    load(calls)


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
    # Those of an activation are made when they are first used.
    compile_unclaimed([(kernels[name], types) for name, types in order if name in kernels])


def _end_with_stdin() -> None:
    os.read(0, 1)
    os._exit(1)


def _name_of(kernel: Kernel) -> tuple[str, str]:
    code = kernel.py_func.__code__
    return code.co_filename, code.co_name

"""How kernels are compiled: the one place for compiler flags, and for who compiles.

Numba's cache on disk is not safe when several processes fill it at once (numba/numba#4807), and on a new machine all
ranks would. Its files are those of one kernel each, and so are our locks: processes load a kernel together, under its
shared lock; one that does not find it takes the lock for itself, and either compiles while the others wait, or finds
what another has compiled meanwhile. Different kernels are compiled at once. Nobody waits in a circle, since a process
compiles one kernel and those that it calls at a time, and no kernel calls itself.

Numba looks for changes in a kernel's own file only, but a kernel is also made of the kernels that it calls. So their
names in the cache tell the state of all files beside this one.

Numba compiles a kernel into every kernel that calls it, again and again, down to machine code. What is large and worth
a call is a `linked_kernel` instead: compiled once, and called by the name of its machine code, which those that call it
have loaded first, compiled or not.

A `scalar` is written once, in plain Python, and compiled into whatever kernel calls it, in the precision of its first
argument. A loop over arrays is written once too, around functions that it knows by name only, and made into a kernel
for each of them by `specialise`.
"""

from __future__ import annotations

import fcntl
import functools
import gc
import importlib
import importlib.util
import inspect
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any, ClassVar, NoReturn, ParamSpec, TypeVar, cast, final
from zlib import crc32

import llvmlite.binding as llvm
import numba
import numpy as np
from numba.core.registry import CPUDispatcher
from numba.core.runtime import rtsys
from numba.core.types.misc import unliteral
from numba.extending import overload

F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")
R = TypeVar("R")

_ALL = {"error_model": "numpy", "no_cfunc_wrapper": True}  # nothing calls them as functions of C
_OPTIONS = {**_ALL, "forceinline": True}  # a call that stays a call is not vectorised

_SOURCES = crc32(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))))

_threads_lock = threading.RLock()


def _import_without_scipy() -> None:
    """Import Numba's functions of arrays, as compiling would, but not SciPy's linear algebra along with them.

    They import it to learn whether it is there, which takes 0.3 s. What needs it, and no kernel here does, imports it
    when it is compiled.
    """
    linalg: Any = importlib.import_module("numba.np.linalg")
    import_scipy = linalg.ensure_blas
    if importlib.util.find_spec("scipy"):
        linalg.ensure_blas = lambda: None
    try:
        importlib.import_module("numba.np.arraymath")
    finally:
        linalg.ensure_blas = import_scipy


def _load_without_declarations(cache: Any) -> None:
    """Let kernels be loaded from `cache` without all that Numba knows of functions and types, which compiling asks for.

    Numba would bring it together first, in 0.15 s of every process; what is compiled needs no more than its runtime.
    """

    def load_overload(signature: Any, target: Any) -> Any:
        rtsys.initialize(target)
        try:
            return cache._load_overload(signature, target)
        except _Outdated:
            return None

    cache.load_overload = load_overload


class _NotCached(Exception):
    """A kernel is not in the cache, and this process may not compile it now."""


class _Outdated(Exception):
    """A kernel in the cache calls one that was compiled anew since."""


@contextmanager
def _lock(path: Path, kind: int) -> Iterator[None]:
    """Hold the lock that is the file `path`, and let no other thread of this process compile or load."""
    with _threads_lock:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, kind)
            yield
        finally:
            os.close(descriptor)


@contextmanager
def garbage_kept() -> Iterator[None]:
    """Collect no garbage meanwhile: a compiler makes much that stays; looking through it takes a tenth of its time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class Kernel(CPUDispatcher):
    """A kernel is a compiled function.

    listener: gets each kernel that Python calls, and its arguments, and calls it or not; see `dist_relu.kernels.tape`.
    all: those of this process.
    """

    listener: ClassVar[Callable[[Kernel, tuple[Any, ...]], Any] | None] = None
    all: ClassVar[list[Kernel]] = []

    def __call__(self, *arguments: Any) -> Any:
        listener = Kernel.listener
        return self.call(*arguments) if listener is None else listener(self, arguments)

    call = CPUDispatcher.__call__

    def address(self, kinds: tuple[Any, ...]) -> int | None:
        """Tell where the machine code for arguments of these types begins; None: Python has not called it with any."""
        compiled = self.overloads.get(kinds)
        if compiled is None:
            return None
        address: int = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
        return address

    def passed(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return arguments as they are passed: what `*` stands for is one."""
        code = self.py_func.__code__
        if not code.co_flags & inspect.CO_VARARGS:
            return arguments
        return *arguments[: code.co_argcount], arguments[code.co_argcount :]

    def is_missing(self, types: tuple[Any, ...]) -> bool:
        """Load the kernel for arguments of these types, and tell whether it must be compiled and nobody does yet."""
        return False

    def compile_unless_busy(self, types: tuple[Any, ...]) -> None:
        """Compile the kernel for arguments of these types, unless another process does."""

    def get_call_template(self, args: Sequence[Any], kws: Any) -> Any:
        """Compile for calls from kernels: once for all constants, of which Numba would make types of their own."""
        return super().get_call_template(tuple(map(unliteral, args)), kws)


def _refuse(*_: Any) -> NoReturn:
    raise TypeError("This kernel was compiled for others to call; Python can't. Call it from a kernel.")


@final
@dataclass(frozen=True)
class _Place:
    """A kernel stands in this module, under this name."""

    module: str
    name: str

    def kernel(self) -> Any:
        return getattr(importlib.import_module(self.module), self.name)


@final
@dataclass(frozen=True)
class _Load:
    """Loads a kernel that one in the cache calls by the name of its machine code, `symbol`."""

    place: _Place
    types: tuple[Any, ...]
    symbol: str

    def __call__(self) -> None:
        callee = self.place.kernel()
        callee.compile(self.types)
        if callee.overloads[self.types].fndesc.llvm_func_name != self.symbol:
            raise _Outdated


@final
class _Nothing:
    """Stands for the machine code of a kernel among what Numba puts into those that call it: so they only name it."""

    def __init__(self, compiled: Any, load: _Load) -> None:
        self._reload_init = {load}
        self._module = llvm.parse_assembly(str(compiled.codegen._create_empty_module(load.place.name)))

    def _ensure_finalized(self) -> None:
        pass

    def _get_module_for_linking(self) -> Any:
        return self._module


def kernel(function: Callable[P, R], *, inlined: bool = False, linked: bool = False) -> Callable[P, R]:
    """Compile a loop over arrays, once per machine and combination of argument types.

    No fast-math: reassociated sums would depend on where an array is cut, and with them the bits.
    The GIL is released, so that a process can be told to stop while it computes or waits.
    inlined: into every kernel that calls it, whatever LLVM thinks of that. Arrays are passed field by field and their
    references counted, so that a call costs as much as a short row of numbers.
    linked: to kernels that call it, and not compiled into each of them, for what is large and called rarely. Python
    can't call it.
    """
    code = function.__code__
    name = f"{code.co_name}_{_SOURCES:08x}"
    code = code.replace(co_name=name, co_qualname=name)
    named = FunctionType(code, function.__globals__, name, function.__defaults__, function.__closure__)
    named.__doc__ = function.__doc__
    options = {**_ALL, "nogil": True, "forceinline": inlined, "no_cpython_wrapper": linked}
    try:
        dispatcher = numba.njit(cache=True, **options)(named)
        _compile_alone(dispatcher, _Place(function.__module__, function.__name__) if linked else None)
    except RuntimeError:  # there is no folder that Numba could write to, so that every process compiles for itself
        _import_without_scipy()
        dispatcher = numba.njit(**options)(named)
    dispatcher.__class__ = Kernel
    Kernel.all.append(dispatcher)
    if linked:
        dispatcher.call = _refuse
    return cast(Callable[P, R], dispatcher)


def _compile_alone(dispatcher: Any, place: _Place | None) -> None:
    """Let one process at a time compile a kernel that is kept on disk.  place: where it stands, if it is linked."""
    _load_without_declarations(dispatcher._cache)
    load_or_compile, compile_now = dispatcher.compile, dispatcher._compiler.compile
    code = dispatcher.py_func.__code__
    file = f"{Path(code.co_filename).stem}.{code.co_name}-{code.co_firstlineno}.lock"  # named as those of the cache are
    may_compile = False
    linkable: set[tuple[Any, ...]] = set()

    def get(signature: tuple[Any, ...]) -> Any:
        """Load the kernel, or compile it if it may be; from then on others can be linked to it."""
        entry = load_or_compile(signature)
        if place and signature not in linkable:
            linkable.add(signature)
            compiled, context = dispatcher.overloads[signature], dispatcher.targetctx
            load = _Load(place, signature, compiled.fndesc.llvm_func_name)
            context.remove_user_function(entry)
            context.insert_user_function(entry, compiled.fndesc, [_Nothing(compiled, load)])
        return entry

    @functools.wraps(compile_now)
    def compile_alone(*arguments: Any) -> Any:
        if not may_compile:
            raise _NotCached
        return compile_now(*arguments)

    def load(signature: Any, how: int = 0) -> Any:
        with _lock(Path(dispatcher.stats.cache_path) / file, fcntl.LOCK_SH | how):
            return get(signature)

    def compile_(signature: Any, how: int = 0) -> Any:
        nonlocal may_compile
        with _lock(Path(dispatcher.stats.cache_path) / file, fcntl.LOCK_EX | how), garbage_kept():
            _import_without_scipy()
            may_compile = True
            try:
                return get(signature)
            finally:
                may_compile = False

    @functools.wraps(load_or_compile)
    def compile_if_missing(signature: Any) -> Any:
        try:
            return load(signature)
        except _NotCached:
            return compile_(signature)

    def is_missing(signature: Any) -> bool:
        try:
            load(signature, fcntl.LOCK_NB)
        except _NotCached:
            return True
        except BlockingIOError:
            pass
        return False

    def compile_unless_busy(signature: Any) -> None:
        with suppress(BlockingIOError):
            compile_(signature, fcntl.LOCK_NB)

    dispatcher._compiler.compile = compile_alone
    dispatcher.compile = compile_if_missing
    dispatcher.is_missing, dispatcher.compile_unless_busy = is_missing, compile_unless_busy


def linked_kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel for others to call where it is, rather than into each of them; see `kernel`."""
    return kernel(function, linked=True)


def scalar(function: F) -> F:
    """Let kernels call `function`, whose float literals take the type of its first argument.

    To Numba `0.5 * x` is float64 even where x is float32; so the literals are replaced before it sees them. Numbers
    that are not literals (globals) would not be.
    """
    code = function.__code__

    def typed(first: Any, *_: Any) -> Callable[..., Any]:
        literal = np.dtype(str(first)).type
        constants = tuple(literal(value) if type(value) is float else value for value in code.co_consts)
        return FunctionType(code.replace(co_consts=constants), function.__globals__, code.co_name)

    # Numba compares the two, and knows neither annotations nor defaults.
    typed.__signature__ = inspect.signature(FunctionType(code, {}))  # type: ignore[attr-defined]
    overload(function, jit_options=_OPTIONS)(typed)
    return function


def specialise(
    loop: Callable[..., Any], name: str, functions: Mapping[str, Callable[..., Any]], *, inlined: bool = False
) -> Callable[..., None]:
    """Make the kernel `name`: `loop` with the functions that its global names stand for.  inlined: see `kernel`.

    New globals rather than a closure, because Numba can't keep on disk what closes over compiled functions; a name of
    its own, because the cache tells the kernels of one file apart by name.
    """
    code = loop.__code__.replace(co_name=name, co_qualname=name)
    return kernel(FunctionType(code, {**loop.__globals__, **functions}, name), inlined=inlined)

"""Whether kernels are being compiled: it takes half a minute on a new machine, and users want to know what goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

from numba.core import event

_PATIENCE_S = 1.0
"""How long compilation may take before it is worth a word."""


@dataclass(frozen=True)
class Compiling:
    """An event of a call: a worker compiles kernels, as it must once on each machine."""


@contextmanager
def compilation_reported(report: Callable[[Any], None]) -> Iterator[None]:
    """Report `Compiling`, once at most, when kernels are compiled meanwhile in this thread, and not only a few."""
    with event.install_listener("numba:compile", _Listener(report)):
        yield


@final
class _Listener(event.Listener):
    """Numba tells it of every function that is in no cache."""

    def __init__(self, report: Callable[[Any], None]) -> None:
        self._report = report
        self._thread = threading.get_ident()
        self._began_s: float | None = None
        self._has_told = False

    def on_start(self, event: Any) -> None:
        if self._has_told or threading.get_ident() != self._thread:
            return
        if not event.data["dispatcher"].py_func.__module__.startswith("dist_relu."):
            return
        now_s = time.monotonic()
        self._began_s = now_s if self._began_s is None else self._began_s
        if now_s - self._began_s > _PATIENCE_S:
            self._has_told = True
            self._report(Compiling())

    def on_end(self, event: Any) -> None:
        pass

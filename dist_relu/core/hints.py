"""What to write instead of the words of other libraries."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

BETAS = {"betas": "beta1=..., beta2=...", "eps": "epsilon=..."}
EPS = {"eps": "epsilon=..."}


def hinting(hints: dict[str, str]) -> Callable[[type[T]], type[T]]:
    """A decorator of classes: their constructors raise TypeError that says what to write.

    hints: by arguments that other libraries have, what to write here.
    """

    def decorate(kind: type[T]) -> type[T]:
        init = kind.__init__

        @functools.wraps(init)
        def checked(self: T, *arguments: Any, **named: Any) -> None:
            for name in named:
                if name in hints:
                    raise TypeError(f"{kind.__name__} has no argument {name}; write {hints[name]}.")
            init(self, *arguments, **named)

        kind.__init__ = checked  # type: ignore[assignment, method-assign]
        return kind

    return decorate

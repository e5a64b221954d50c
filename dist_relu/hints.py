"""What to write instead of the words of other libraries."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

BETAS = {"betas": "beta1=..., beta2=...", "eps": "epsilon=..."}
EPS = {"eps": "epsilon=..."}


def hinting(hints: dict[str, str], *, in_order: int | None = None, order: str = "") -> Callable[[type[T]], type[T]]:
    """A decorator of classes: their constructors raise TypeError that says what to write.

    hints: by arguments that other libraries have, what to write here.  in_order: how many arguments may be given
    without their names; order: what to write when there are more.
    """

    def decorate(kind: type[T]) -> type[T]:
        init = kind.__init__

        @functools.wraps(init)
        def checked(self: T, *arguments: Any, **named: Any) -> None:
            for name in named:
                if name in hints:
                    raise TypeError(f"{kind.__name__} has no argument {name}; write {hints[name]}.")
            if in_order is not None and len(arguments) > in_order:
                raise TypeError(
                    f"{kind.__name__} takes {in_order} arguments without names, not {len(arguments)}. {order}"
                )
            init(self, *arguments, **named)

        kind.__init__ = checked  # type: ignore[assignment, method-assign]
        return kind

    return decorate

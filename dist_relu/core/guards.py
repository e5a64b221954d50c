"""Methods of interfaces, as users call them and as we do.

Kernels trust the arrays that they are given. Where users may call a method with arrays of their own, or write one, what
goes in and what comes out is checked; where we have checked before, we call the method as it was written.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

_UNCHECKED = "_dist_relu_unchecked"


def is_ours(kind: type) -> bool:
    """Whether a class is one of this package's, whose methods do what they say."""
    return f"{kind.__module__}.".startswith("dist_relu.")


def guard(kind: type, **checks: Callable[..., Any]) -> None:
    """Let methods of a class, where it has them itself, go through checks.

    Each check is called with the class, the method as it was written, the object, and the arguments.
    """
    for name, check in checks.items():
        method = vars(kind).get(name)
        if isinstance(method, FunctionType) and not getattr(method, "__isabstractmethod__", False):
            setattr(kind, name, _checked(kind, unwrapped(method), check))


def unwrapped(function: Any) -> Any:
    """The function of a method as it was written."""
    return getattr(function, _UNCHECKED, function)


def unchecked(method: Any) -> Callable[..., Any]:
    """A bound method as it was written; anything else that can be called as it is."""
    return MethodType(unwrapped(method.__func__), method.__self__) if isinstance(method, MethodType) else method


def _checked(kind: type, method: FunctionType, check: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def checked(self: object, *arguments: Any, **options: Any) -> Any:
        return check(kind, method, self, *arguments, **options)

    setattr(checked, _UNCHECKED, method)
    return checked

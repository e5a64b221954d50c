"""What arguments may be: one set of checks for constructors, functions and options.

A check takes an argument's name, as its user knows it ("epochs", "Dense(units)"), and what was passed for it. It
returns that as Python's own type, so that a number of NumPy's is stored, compared and saved as one of Python's. It
raises TypeError for what is of another kind and ValueError for what is out of bounds; both say what was found, what
was expected, and for which argument.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterable, Sequence
from math import inf, isfinite, isinf
from numbers import Real
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

T = TypeVar("T")

Check = Callable[[str, Any], Any]

_SMALLEST, _LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


def check_int(name: str, value: Any, least: int = 1, most: int = 2**63 - 1) -> int:
    """A whole number from `least` to `most`.  True and False are none."""
    scalar = _scalar(value)
    try:
        number = operator.index(scalar)
    except TypeError:
        number = None
    if number is None or isinstance(scalar, bool):
        raise TypeError(f"{shown(name, value)}: must be a whole number.")
    if number < least:
        raise ValueError(f"{shown(name, number)}: must be at least {least}.")
    if number > most:
        raise ValueError(f"{shown(name, number)}: must be at most {most}.")
    return number


def check_seed(seed: Any) -> int:
    """A whole number of 64 bits."""
    return check_int("seed", seed, 0, 2**64 - 1)


def check_float(
    name: str,
    value: Any,
    *,
    least: float = -inf,
    above: float | None = None,
    most: float = inf,
    below: float | None = None,
    finite: bool = True,
) -> float:
    """A real number within bounds that float32 can hold; `finite` or infinite, but never NaN.  True is no number."""
    scalar = _scalar(value)
    if not isinstance(scalar, Real) or isinstance(scalar, bool):
        raise TypeError(f"{shown(name, value)}: must be a number.")
    try:
        number = float(scalar)
    except OverflowError:
        number = inf
    within = least <= number <= most and (above is None or number > above) and (below is None or number < below)
    fits = abs(number) <= _LARGEST or (not finite and isinf(number))
    if above == 0:
        fits = fits and number >= _SMALLEST  # what is nothing in float32 is not above 0
    if not (within and fits):
        raise ValueError(f"{shown(name, value)}: must be {_bounds(least, above, most, below, finite=finite)}.")
    return number


def check_positive(name: str, value: Any) -> float:
    """A finite number above 0."""
    return check_float(name, value, above=0)


def check_not_negative(name: str, value: Any) -> float:
    """A finite number of at least 0."""
    return check_float(name, value, least=0)


def check_share(name: str, value: Any) -> float:
    """A number of at least 0 and below 1."""
    return check_float(name, value, least=0, below=1)


def check_probability(name: str, value: Any) -> float:
    """A number of at least 0 and at most 1."""
    return check_float(name, value, least=0, most=1)


def check_bool(name: str, value: Any) -> bool:
    """True or False.  0 and 1 are numbers."""
    scalar = _scalar(value)
    if not isinstance(scalar, bool | np.bool_):
        raise TypeError(f"{shown(name, value)}: must be True or False.")
    return bool(scalar)


def check_choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """One of some words."""
    known = list(choices)
    if not isinstance(value, str):
        raise TypeError(f"{shown(name, value)}: expected {_listed(known)}.")
    if value not in known:
        raise ValueError(f"{shown(name, value)}: expected {_listed(known)}.")
    return str(value)


def check_is(name: str, value: object, kind: type[T] | UnionType) -> T:
    """An object of a type, or of one of several."""
    if isinstance(value, kind):
        return value
    wanted = kind.__name__ if isinstance(kind, type) else " or ".join(one.__name__ for one in kind.__args__)
    hint = ""
    if isinstance(value, type) and issubclass(value, kind):
        hint = f", not the class itself: write {value.__name__}(...)"
    raise TypeError(f"{shown(name, value)}: expected an object of type {wanted}{hint}.")


def check_callable(name: str, value: Any) -> Any:
    """A function, or what else can be called."""
    if not callable(value):
        raise TypeError(f"{shown(name, value)}: expected a function.")
    return value


def check_sequence(name: str, values: Any, check: Check, what: str) -> tuple[Any, ...]:
    """A tuple or list, or an array of one dimension, each of whose elements passes a check, as a tuple.

    what: the elements are, for messages.
    """
    if not isinstance(values, tuple | list) and not (isinstance(values, np.ndarray) and values.ndim == 1):
        raise TypeError(f"{shown(name, values)}: expected a sequence of {what}.")
    return tuple(check(_element(name, number), value) for number, value in enumerate(values))


def check_ints(name: str, values: Any, least: int = 1) -> tuple[int, ...]:
    """A sequence of whole numbers, each at least `least`: a shape."""
    return check_sequence(name, values, lambda at, value: check_int(at, value, least), "whole numbers")


def check_shape(name: str, values: Any, axes: Sequence[str]) -> tuple[int, ...]:
    """A sequence of whole numbers of at least 1, one for each of these axes."""
    shape = check_ints(name, values)
    if len(shape) != len(axes):
        raise ValueError(f"{shown(name, values)}: expected ({', '.join(axes)}).")
    return shape


def check_floats(name: str, values: Any) -> tuple[float, ...]:
    """A sequence of finite numbers."""
    return check_sequence(name, values, check_float, "numbers")


def check_dtype(name: str, value: npt.DTypeLike) -> np.dtype[Any]:
    """float32 or float64, in the order of bytes of this machine."""
    try:
        dtype = None if value is None else np.dtype(value)
    except (TypeError, ValueError):
        dtype = None
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"{shown(name, value)}: models compute in float32 or float64.")
    return cast("np.dtype[Any]", dtype)


def check_path(name: str, value: Any) -> Path:
    """The path of a file or folder: text or a Path."""
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise TypeError(f"{shown(name, value)}: expected a path.")
    if not os.fspath(value) or "\0" in os.fspath(value):
        raise ValueError(f"{shown(name, value)}: no file can have that path.")
    return Path(value)


def optional(check: Check) -> Check:
    """Make of a check the same one for an argument that may also be None."""
    return lambda name, value: None if value is None else check(name, value)


def instance_of(kind: type | UnionType) -> Check:
    """`check_is` for this type."""
    return lambda name, value: check_is(name, value, kind)


def one_of(*choices: str) -> Check:
    """`check_choice` of these words."""
    return lambda name, value: check_choice(name, value, choices)


def check_fields(owner: object, /, known_as: str | None = None, **checks: Check) -> None:
    """Let the fields of a dataclass through their checks, and store what these return; for `__post_init__`.

    known_as: whose the arguments are to the user, by default the class; "" for arguments of a function.
    """
    name = type(owner).__name__ if known_as is None else known_as
    for field, check in checks.items():
        object.__setattr__(owner, field, check(f"{name}({field})" if name else field, getattr(owner, field)))


def shown(name: str, value: object) -> str:
    """An argument as it was written: "epochs=0", "Dense(units=0)"."""
    text = repr(value)
    text = text if len(text) <= 100 else f"{text[:97]}..."
    text = " ".join(text.split())
    return f"{name[:-1]}={text})" if name.endswith(")") else f"{name}={text}"


def _element(name: str, number: int) -> str:
    return f"{name[:-1]}[{number}])" if name.endswith(")") else f"{name}[{number}]"


def _scalar(value: Any) -> Any:
    """The element of an array without dimensions; anything else as it is."""
    return value[()] if isinstance(value, np.ndarray) and not value.ndim else value


def _bounds(least: float, above: float | None, most: float, below: float | None, *, finite: bool) -> str:
    words = []
    if isfinite(least):
        words.append(f"at least {least:g}")
    if above is not None:
        words.append(f"above {above:g}")
    if isfinite(most):
        words.append(f"at most {most:g}")
    if below is not None:
        words.append(f"below {below:g}")
    if finite and not (isfinite(most) or below is not None):
        words.append("finite in float32")
    return " and ".join(words) or "a number, not NaN"


def _listed(words: list[str]) -> str:
    quoted = [f'"{word}"' for word in words]
    return " or ".join(filter(None, [", ".join(quoted[:-1]), quoted[-1]]))

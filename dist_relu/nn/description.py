"""Layers as plain data: dataclasses to JSON and back, copies without state, and what stands inside of a layer.

A description names classes. Those of `dist_relu.nn` go by their plain names, all others as "module:name", so that a
class of somebody's own that is called `ReLU` is never taken for ours. Names turn into classes by a list alone.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar, cast

import numpy as np

T = TypeVar("T")

_OURS = "dist_relu.", "builtins", "numpy"
_PLAIN = __name__.rpartition(".")[0]
_DICT = "dict"


def copy_unbuilt(value: T) -> T:
    """A copy of a layer, as its constructor made it: no shapes, no parameters, no remembered arrays."""
    if isinstance(value, list | tuple):
        return cast(T, type(value)(map(copy_unbuilt, value)))
    if isinstance(value, dict):
        return cast(T, dict(zip(value, map(copy_unbuilt, value.values()), strict=True)))
    if isinstance(value, np.ndarray):
        return value.copy()
    if not _is_data(value):
        return value
    return type(value)(**{name: copy_unbuilt(item) for name, item in _arguments(value).items()})


def check_is_data(value: object) -> None:
    """Raise TypeError unless an object's fields are what its constructor takes, so that it can be made anew."""
    kind = type(value)
    has_own_fields = bool(vars(kind).get("__annotations__")) and "__dataclass_fields__" not in vars(kind)
    if not _is_data(value) or has_own_fields or set(inspect.signature(kind).parameters) != set(_arguments(value)):
        raise TypeError(
            f"{kind.__name__} is no dataclass: it can be copied neither to workers nor into files. Write @dataclass(eq="
            "False) before the class, its arguments as fields, and all else as field(init=False)."
        )
    if not are_same(value, copy_unbuilt(value)):
        raise TypeError(
            f"{kind.__name__} can't be copied: its constructor makes another layer of the same fields. Let "
            "__post_init__ leave them as they are, or as it would leave them a second time."
        )


def parts(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """All objects that `value` is made of, itself first, each with its place: "", "body.0", "body.0.init"."""
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, list | tuple):
        items = enumerate(value)
    elif isinstance(value, dict):
        items = value.items()
    else:
        yield place, value
        if _is_data(value):
            items = _arguments(value).items()
    for name, item in items:
        yield from parts(item, f"{place}.{name}" if place else str(name))


def is_ours(value: Any) -> bool:
    """Tell whether all that `value` is made of comes with this package: what it computes is up to kernels alone."""
    return all(type(part).__module__.startswith(_OURS) for _, part in parts(value))


def are_same(one: Any, other: Any) -> bool:
    """Whether two layers or arguments of such are made of the same."""
    if one is other or type(one) is not type(other):
        return one is other
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(are_same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(are_same(one[key], other[key]) for key in one)
    if isinstance(one, np.ndarray):
        return (one.shape, one.dtype, one.tobytes()) == (other.shape, other.dtype, other.tobytes())
    if _is_data(one):
        return are_same(_arguments(one), _arguments(other))
    return bool(one == other)


def name_of(kind: type) -> str:
    """What descriptions call a class."""
    is_plain = f"{kind.__module__}.".startswith(f"{_PLAIN}.")
    return kind.__name__ if is_plain else f"{kind.__module__}:{kind.__qualname__}"


def brief(value: Any) -> str:
    """A layer or argument of one as Python writes it, without arguments that have their defaults."""
    if isinstance(value, list):
        return f"[{', '.join(map(brief, value))}]"
    if isinstance(value, tuple):
        return f"({', '.join(map(brief, value))}{',' if len(value) == 1 else ''})"
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return repr(value)
    given = []
    for field in dataclasses.fields(value):
        argument = getattr(value, field.name, None)
        default = field.default_factory() if callable(field.default_factory) else field.default
        if field.init and not (type(argument) is type(default) and bool(np.all(argument == default))):
            given.append(f"{field.name}={brief(argument)}")
    return f"{type(value).__name__}({', '.join(given)})"


def describe(value: Any) -> Any:
    """A layer or argument of one as JSON: {"Dense": {"units": 10, ...}}."""
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if isinstance(value, dict):
        return {_DICT: {key: describe(item) for key, item in value.items()}}
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if _is_data(value):
        return {name_of(type(value)): {name: describe(item) for name, item in _arguments(value).items()}}
    return value


def construct(description: Any, classes: Mapping[str, type], own: Iterable[type] = ()) -> Any:
    """The inverse of `describe`, with tuples for lists.

    classes: those of `dist_relu.nn`, by their names.  own: those of the user.  Raises KeyError for any other.
    """
    if isinstance(description, list):
        return tuple(construct(item, classes, own) for item in description)
    if isinstance(description, dict):
        ((name, items),) = description.items()
        arguments = {key: construct(item, classes, own) for key, item in items.items()}
        return arguments if name == _DICT else _find(name, classes, own)(**arguments)
    return description


def _find(name: str, classes: Mapping[str, type], own: Iterable[type]) -> type:
    """The class that a description means.

    A class of the user's own may have come from another module, as it does when its script is run and imported later.
    Files of older versions have plain names for these classes too.
    """
    if name in classes:
        return classes[name]
    module, _, qualname = name.rpartition(":")
    found = [kind for kind in own if name_of(kind) == name]
    if not found:
        found = [kind for kind in own if (kind.__qualname__ if module else kind.__name__) == qualname]
    if len(found) != 1:
        raise KeyError(name)
    return found[0]


def _is_data(value: object) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _arguments(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}

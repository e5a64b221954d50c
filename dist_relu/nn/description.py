"""Layers as plain data: dataclasses to JSON and back, and copies without state."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import numpy as np

T = TypeVar("T")


def fresh(value: T) -> T:
    """A copy of a layer, as its constructor made it: no shapes, no parameters, no remembered arrays."""
    if isinstance(value, list | tuple):
        return cast(T, type(value)(map(fresh, value)))
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    return cast(T, type(value)(**{name: fresh(item) for name, item in _arguments(value).items()}))


def describe(value: Any) -> Any:
    """A layer or argument of one as JSON: {"Dense": {"units": 10, ...}}."""
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {type(value).__name__: {name: describe(item) for name, item in _arguments(value).items()}}
    return value


def construct(description: Any, classes: Mapping[str, type]) -> Any:
    """The inverse of `describe`, with tuples for lists.  Raises KeyError for a name that is not in `classes`."""
    if isinstance(description, list):
        return tuple(construct(item, classes) for item in description)
    if isinstance(description, dict):
        ((name, arguments),) = description.items()
        return classes[name](**{key: construct(item, classes) for key, item in arguments.items()})
    return description


def _arguments(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}

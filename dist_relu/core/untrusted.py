"""The one place that reads what strangers wrote: sizes are bounded before memory is taken, and every error is ours.

Readers of models, logs and data sets are made of these; none of them runs, or finds by its name, what a file asks for.
"""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from math import nan
from pathlib import Path
from sys import float_info
from typing import IO, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from dist_relu.errors import DistReluError

T = TypeVar("T")

_PIECE_BYTES = 2**22
_LONGEST_MESSAGE = 1000


@contextmanager
def reading(path: str | Path, kind: type[DistReluError], what: str) -> Iterator[None]:
    """Raise `kind`, which names the file and says why, for whatever goes wrong inside: libraries raise anything.

    what: the file should be, such as "a model". What the file itself has put into a message is made `printable`.
    """
    try:
        yield
    except kind as error:
        raise kind(printable(str(error))) from error.__cause__
    except MemoryError as error:
        raise kind(f"{path} can't be read as {what}: there is not enough memory for what it holds.") from error
    except RecursionError as error:
        raise kind(f"{path} can't be read as {what}: it is nested too deep.") from error
    except Exception as error:
        raise kind(printable(f"{path} can't be read as {what}: {_reason(error)}.")) from error


def printable(message: str) -> str:
    """A message that a terminal shows as it is: on one line, of bounded length, and without control characters."""
    if len(message) > _LONGEST_MESSAGE:
        message = message[:_LONGEST_MESSAGE] + "..."
    if message.isprintable():
        return message
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in message)


def read_file(path: str | Path, most_bytes: int) -> bytes:
    """The content of a file, or of a pipe.  Raises OSError, and ValueError for more than `most_bytes`."""
    with open(path, "rb") as stream:
        content = read_up_to(stream, most_bytes + 1)
    if len(content) > most_bytes:
        raise ValueError(f"it has more than {most_bytes:,} bytes")
    return bytes(content)


def read_exactly(stream: IO[bytes], size_bytes: int) -> bytearray:
    """The next bytes of a stream.  Raises EOFError where there are fewer."""
    content = read_up_to(stream, size_bytes)
    if len(content) < size_bytes:
        raise EOFError(f"it ends after {len(content):,} of {size_bytes:,} bytes")
    return content


def read_up_to(stream: IO[bytes], size_bytes: int) -> bytearray:
    """The next bytes, or all that are left.  Memory grows with what is there, not with what is asked for."""
    content = bytearray()
    while len(content) < size_bytes:
        piece = stream.read(min(size_bytes - len(content), _PIECE_BYTES))
        if not piece:
            break
        content += piece
    return content


def parse_json(text: str | bytes | bytearray) -> Any:
    """What JSON stands for.  Raises ValueError, also for keys that stand twice, and RecursionError."""
    return json.loads(text, object_pairs_hook=_without_doubles)


def made(kind: type[T], content: Any) -> T:
    """What was read from JSON as an object of type `kind`, which is checked down to the last number.

    kind: a dataclass, a list or sequence, a tuple, a dict with keys of text, a number, text, one of some texts, or one
    of these or None. Where a float must stand and there is null, it is NaN.
    Raises ValueError, which says what is not as it should be.
    """
    result: T = _made(kind, content, "it")
    return result


def _made(kind: Any, content: Any, name: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _made_of_fields(kind, content, name)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):  # with None
        (kind,) = (one for one in arguments if one is not type(None))
        return None if content is None else _made(kind, content, name)
    if isinstance(content, list) and origin in (list, Sequence, tuple):
        return _made_list(arguments[0], content, name) if origin is not tuple else _made_tuple(arguments, content, name)
    if origin is dict and isinstance(content, dict):
        return {key: _made(arguments[1], item, f"{name}[{key!r}]") for key, item in content.items()}
    return _made_single(kind, content, name)


def _is_shallow(content: Any, levels: int = 20) -> bool:
    """Whether what may be anything can be printed without going too deep."""
    items = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    return levels > 0 and all(_is_shallow(item, levels - 1) for item in items)


def _made_single(kind: Any, content: Any, name: str) -> Any:
    if kind is float and content is None:
        return nan
    if kind is float and type(content) in (int, float) and abs(content) <= float_info.max:
        return float(content)
    is_as_it_should_be = {Any: _is_shallow(content), int: type(content) is int and abs(content) < 2**63}
    if is_as_it_should_be.get(kind, kind in (str, bool) and isinstance(content, kind)):
        return content
    if get_origin(kind) is Literal and isinstance(content, str) and content in get_args(kind):
        return content
    raise ValueError(f"{name} is {_short(content)}")


def _made_list(kind: Any, content: list[Any], name: str) -> list[Any]:
    if kind is int and set(map(type, content)) == {int} and max(content) < 2**63 and min(content) >= -(2**63):
        return content  # the long ones: counts
    return [_made(kind, item, f"{name}[{i}]") for i, item in enumerate(content)]


def _made_tuple(kinds: tuple[Any, ...], content: list[Any], name: str) -> tuple[Any, ...]:
    if len(content) != len(kinds):
        raise ValueError(f"{name} is {_short(content)}")
    return tuple(_made(kind, item, f"{name}[{i}]") for i, (kind, item) in enumerate(zip(kinds, content, strict=True)))


def _made_of_fields(kind: Any, content: Any, name: str) -> Any:
    types_, needed = _fields(kind)
    if not isinstance(content, dict):
        raise ValueError(f"{name} is {_short(content)}")
    if unknown := content.keys() - types_.keys():
        raise ValueError(f"{name} has {_short(min(unknown))}")
    if missing := needed - content.keys():
        raise ValueError(f"{name} has no {min(missing)}")
    return kind(**{key: _made(types_[key], item, f"{name}.{key}".removeprefix("it.")) for key, item in content.items()})


@cache
def _fields(kind: Any) -> tuple[dict[str, Any], set[str]]:
    """The types of a dataclass's fields, and the names of those without a default."""
    hints = get_type_hints(kind)
    fields = [field for field in dataclasses.fields(kind) if field.init]
    absent = dataclasses.MISSING
    needed = {field.name for field in fields if field.default is absent and field.default_factory is absent}
    return {field.name: hints[field.name] for field in fields}, needed


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key stands in it twice")
    return content


def _reason(error: Exception) -> str:
    """One line, without the stop at its end."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines()
    return (lines[0].rstrip(".") if lines else "") or type(error).__name__


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except RecursionError:
        return "nested too deep"
    return text if len(text) <= 40 else text[:37] + "..."

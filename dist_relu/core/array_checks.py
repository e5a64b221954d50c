"""What arrays of users may be: numbers, all of which mean what they say.

NumPy makes an array of nearly everything, and often of something else than was meant: it drops masks, puts a sparse
matrix or a generator into an array of one Python object, keeps dates, words and records. What would be trained on
without being meant is refused here, with what to write instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.errors import DataError

_ON_TEXT = "Of labels: names, {name} = np.unique({name}, return_inverse=True). Of numbers: {name}.astype('float64')."
_ADVICE = {
    "c": "Take its real and its imaginary part: {name}.real, {name}.imag.",
    "m": "A number of days: {name} / np.timedelta64(1, 'D').",
    "M": "A number of days since the first: ({name} - {name}.min()) / np.timedelta64(1, 'D').",
    "U": _ON_TEXT,
    "S": _ON_TEXT,
    "T": _ON_TEXT,
    "V": "Of records: np.lib.recfunctions.structured_to_unstructured({name}); of numbers: {name}.astype('float32').",
}
"""What to write instead of an array of some kind."""

_TOO_WIDE = "Convert it: {name}.astype('float64')."


def check_numbers(name: str, value: Any) -> Array:
    """`value` as an array of numbers of at most 64 bits, in native byte order; copied only where it must be.

    Raises `DataError` for anything else: masked values, sparse matrices, words, dates, records, ragged lists, ...
    """
    check_not_masked(name, value)
    if hasattr(value, "toarray"):
        raise DataError(f"{name} is a sparse matrix ({type(value).__name__}); expected an array: {name}.toarray().")
    if isinstance(value, Iterator):
        raise DataError(f"{name} is a {type(value).__name__}; expected an array: np.array(list({name})).")
    try:
        array = np.asarray(value)
    except Exception as error:  # of NumPy for ragged lists, of other libraries for arrays of theirs
        reason = str(error).rstrip(".") or type(error).__name__
        raise DataError(f"{name} can't be made an array of numbers: {reason}.") from None
    dtype = array.dtype
    if dtype == np.object_ and not array.ndim:
        raise DataError(f"{name} is of type {type(value).__name__}; expected an array of numbers.")
    if dtype == np.float16:
        raise DataError(
            f"{name} is float16, which loses too much; expected float32 or float64: {name}.astype('float32')."
        )
    if dtype.kind not in "fiub" or dtype.itemsize > 8:
        advice = _advice_on_objects(name, array) if dtype.kind == "O" else _ADVICE.get(dtype.kind, _TOO_WIDE)
        raise DataError(
            f"{name} has dtype {dtype}; expected float32, float64, integers or bool. {advice.format(name=name)}"
        )
    return array.astype(dtype.newbyteorder("="), copy=False)


def check_not_masked(name: str, value: Any) -> None:
    """Raise `DataError` for masked elements, which arrays made of `value` would not know any more."""
    if np.ma.is_masked(value) or (isinstance(value, list | tuple) and _holds_masked(value)):
        raise DataError(
            f"{name} is a masked array with masked elements, and what they hold would be taken for numbers. "
            f"Fill them, as with {name}.filled(0), or leave their samples out."
        )


def check_finite(name: str, array: Array) -> None:
    """Raise `DataError` for NaN and infinities."""
    if array.dtype.kind != "f":
        return
    finite = np.isfinite(array)
    if not finite.all():
        where = first_where(~finite)
        raise DataError(
            f"{element(name, where)} is {array[where]}; expected finite numbers. "
            f"{array.size - np.count_nonzero(finite)} of {array.size} values are NaN or infinite."
        )


def first_where(condition: Array) -> tuple[int, ...]:
    """The index of the first element that is True; there must be one."""
    return tuple(map(int, np.unravel_index(int(np.argmax(condition)), condition.shape)))


def element(name: str, where: tuple[int, ...]) -> str:
    """An element as its user would write it: "x[3, 4]"."""
    return f"{name}[{', '.join(map(str, where))}]"


def _holds_masked(values: list[Any] | tuple[Any, ...]) -> bool:
    kinds = set(map(type, values))  # of a list of a million numbers, a single one
    nested = tuple(kind for kind in kinds if issubclass(kind, list | tuple))
    masked = any(issubclass(kind, np.ma.MaskedArray) for kind in kinds)
    return any(
        (masked and np.ma.is_masked(value)) or (isinstance(value, nested) and _holds_masked(value))
        for value in (values if masked or nested else ())
    )


def _advice_on_objects(name: str, array: Array) -> str:
    odd = next((where for where, item in np.ndenumerate(array) if not _is_number(item)), None)
    if odd is None:
        whole = all(isinstance(item, int | np.integer | np.bool_) for item in array.flat)
        return f"Its elements are numbers: {{name}}.astype('{'int64' if whole else 'float64'}')."
    if isinstance(array[odd], str):
        return _ON_TEXT
    return (
        f"{element(name, odd)} is of type {type(array[odd]).__name__}: put a number in its place, or leave its row or "
        "column out."
    )


def _is_number(item: object) -> bool:
    return isinstance(item, int | float | np.number | np.bool_)

"""What the functions of this package take: arrays and other arguments, checked."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from dist_relu.core.array_checks import check_not_masked
from dist_relu.core.arrays import Array
from dist_relu.core.checks import Check, check_float, check_int, check_positive, one_of, shown

_perhaps_infinite = partial(check_float, finite=False)


def _check_not_zero(name: str, value: object) -> float:
    """A finite number that can be divided by."""
    number = check_float(name, value)
    if abs(number) < np.finfo(np.float32).tiny:
        raise ValueError(f"{shown(name, value)}: divides by zero in float32. Choose another.")
    return number


_CHECKS: dict[str, dict[str, Check]] = {
    "leaky_relu": {"negative_slope": check_float},
    "rrelu": {"lower": check_float, "upper": check_float},
    "threshold": {"threshold": _perhaps_infinite, "value": _perhaps_infinite},
    "elu": {"alpha": check_float},
    "celu": {"alpha": check_positive},
    "gelu": {"approximate": one_of("none", "tanh")},
    "softplus": {"beta": _check_not_zero, "threshold": _perhaps_infinite},
    "hardtanh": {"min_val": _perhaps_infinite, "max_val": _perhaps_infinite},
}
"""What the arguments of a function may be, and those of the layer of the same name."""


def check_arguments(function: str, owner: str = "", **arguments: Any) -> list[Any]:
    """The checked arguments of the function of that name, as Python's own types, in their order.

    owner: whose they are, for messages: the function, or the layer that has its arguments.  Raises TypeError and
    ValueError.
    """
    owner = owner or function
    values = [check(f"{owner}({name})", arguments[name]) for name, check in _CHECKS[function].items()]
    if function == "rrelu" and values[0] > values[1]:
        raise ValueError(f"{owner}(lower={values[0]}, upper={values[1]}): lower must not be above upper.")
    if function == "hardtanh" and values[0] >= values[1]:
        raise ValueError(f"{owner}(min_val={values[0]}, max_val={values[1]}): min_val must be smaller.")
    return values


def floats(name: str, x: npt.ArrayLike) -> Array:
    """x as a C-contiguous array of float32 or float64."""
    check_not_masked("x", x)
    try:
        array = np.asarray(x)
    except ValueError as error:  # of lists of unlike lengths
        raise ValueError(f"{name}: x is no array of numbers. {error}") from None
    if array.dtype not in (np.float32, np.float64):
        raise TypeError(
            f"{name} computes in float32 or float64, not in {array.dtype}. Convert x first: x.astype('float32')."
        )
    return np.asarray(array, order="C")


def prelu_weight(x: Array, weight: npt.ArrayLike) -> Array:
    weights = np.asarray(weight).reshape(-1)
    if weights.dtype.kind not in "fiu":
        raise TypeError(f"{shown('prelu(weight)', weight)}: must be real numbers.")
    if not (np.abs(weights) <= np.finfo(x.dtype).max).all():
        raise ValueError(f"{shown('prelu(weight)', weight)}: must be finite in {x.dtype}.")
    weights = weights.astype(x.dtype)
    channels = x.shape[-1] if x.ndim else 1
    if weights.size not in (1, channels):
        raise ValueError(f"prelu: weight has {weights.size} elements; expected 1, or {channels} as x's last axis.")
    return weights


def rows_along(name: str, x: npt.ArrayLike, dim: int) -> Array:
    """x with `dim` as its last axis, contiguous."""
    x = floats(name, x)
    if x.ndim == 0:
        raise ValueError(f"{name} works along an axis, but x is a single number.")
    dim = check_int(f"{name}(dim)", dim, -x.ndim, x.ndim - 1)
    return np.ascontiguousarray(np.moveaxis(x, dim, -1))


def flat_rows(x: Array) -> Array:
    return x.reshape(int(np.prod(x.shape[:-1])), x.shape[-1])


def halved(name: str, x: npt.ArrayLike, dim: int) -> Array:
    rows = rows_along(name, x, dim)
    if rows.shape[-1] % 2:
        raise ValueError(f"{name} takes x apart into halves, but axis dim={dim} has {rows.shape[-1]} elements.")
    return rows

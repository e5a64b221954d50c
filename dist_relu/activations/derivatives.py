"""The derivatives of the activation functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from dist_relu.activations import functions
from dist_relu.activations.arguments import flat_rows, floats, halved, prelu_weight
from dist_relu.core.arrays import Array
from dist_relu.kernels import activations as kernels
from dist_relu.kernels.elementwise import Activation


def derivative(name: str, x: npt.ArrayLike, **arguments: Any) -> Array:
    """The derivative of the function `name` at x; see `value_and_derivative`."""
    return value_and_derivative(name, x, **arguments)[1]


def value_and_derivative(name: str, x: npt.ArrayLike, **arguments: Any) -> tuple[Array, Array]:
    """y, and the derivative of each element of y by the element of x that it comes from, in the shape of x.

    What is not one number to one number:
    softmax, log_softmax: the Jacobian (…, K, K), ∂yᵢ/∂xⱼ at […, i, j]; `dim` becomes the last two axes.
    crelu: in the shape of y.
    glu, reglu, swiglu: in the shape of x: for each element of either half, the derivative of the output it goes into.
    prelu: by x.  rrelu: without `training`, since its slopes are drawn anew.

    Raises ValueError for an unknown name, TypeError for an argument that the function does not take.
    """
    if not isinstance(name, str) or name not in _DERIVATIVES:
        raise ValueError(f"No activation is called {name!r}. There are {', '.join(sorted(_DERIVATIVES))}.")
    function: Callable[..., Array] = getattr(functions, name)
    try:
        bound = inspect.signature(function).bind(floats(name, x), **arguments)
    except TypeError as error:
        raise TypeError(f"{name}(): {error}") from None
    bound.apply_defaults()
    y = function(*bound.args)
    return y, _DERIVATIVES[name](y, *bound.args)


def _slope(activation: Activation, y: Array, x: Array, *arguments: float) -> Array:
    slopes = np.ones_like(x)
    kept = y if activation.keeps_output else x
    activation.backward(slopes.reshape(-1), kept.reshape(-1), *activation.in_dtype(x.dtype, arguments))
    return slopes


def _prelu_slope(y: Array, x: Array, weight: npt.ArrayLike) -> Array:
    return np.where(x > 0, x.dtype.type(1), np.broadcast_to(prelu_weight(x, weight), x.shape))


def _rrelu_slope(y: Array, x: Array, lower: float, upper: float, training: bool, rng: object) -> Array:
    if training:
        raise ValueError("rrelu draws its slopes anew in training, so it has no derivative to return.")
    return _slope(kernels.leaky_relu, y, x, (lower + upper) / 2)


def _softmax_jacobian(y: Array, x: Array, dim: int) -> Array:
    p = np.moveaxis(y, dim, -1)
    jacobian: Array = p[..., :, None] * (np.eye(p.shape[-1], dtype=p.dtype) - p[..., None, :])
    return jacobian


def _log_softmax_jacobian(y: Array, x: Array, dim: int) -> Array:
    p = np.exp(np.moveaxis(y, dim, -1))
    jacobian: Array = np.eye(p.shape[-1], dtype=p.dtype) - p[..., None, :]
    return jacobian


def _gate_slope(name: str, activation: Activation, y: Array, x: Array, dim: int) -> Array:
    rows = halved(name, x, dim)
    slopes = np.empty_like(rows)
    dy = np.ones((*rows.shape[:-1], rows.shape[-1] // 2), rows.dtype)
    activation.gate_backward(flat_rows(dy), flat_rows(rows), flat_rows(slopes))
    return np.moveaxis(slopes, -1, dim)


def _crelu_slope(y: Array, x: Array, dim: int) -> Array:
    above, below = np.split(np.where(y <= 0, y.dtype.type(0), y.dtype.type(1)), 2, axis=dim)
    return np.concatenate([above, -below], axis=dim)


_DERIVATIVES: dict[str, Callable[..., Array]] = {
    **{activation.name: partial(_slope, activation) for activation in kernels.ELEMENTWISE},
    "gelu": lambda y, x, approximate: _slope(kernels.gelu_by_name(approximate), y, x),
    "prelu": _prelu_slope,
    "rrelu": _rrelu_slope,
    "crelu": _crelu_slope,
    "softmax": _softmax_jacobian,
    "log_softmax": _log_softmax_jacobian,
    "glu": partial(_gate_slope, "glu", kernels.sigmoid),
    "reglu": partial(_gate_slope, "reglu", kernels.relu),
    "swiglu": partial(_gate_slope, "swiglu", kernels.silu),
}
"""From y, x and the further arguments of the function of that name."""

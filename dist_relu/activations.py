"""Activation functions of arrays, and their derivatives.

    y = activations.leaky_relu(x, negative_slope=0.1)
    dy_dx = activations.derivative("leaky_relu", x, negative_slope=0.1)
    y, dy_dx = activations.value_and_derivative("leaky_relu", x, negative_slope=0.1)

Every function takes an array of float32 or float64, of any shape and memory layout, and returns a new one of the same
dtype; other dtypes raise TypeError. Names, arguments and defaults are those of `torch.nn.functional` where it has the
function. NaN goes through, infinities give limits, nothing overflows on the way. At a kink the slope is the one that
PyTorch takes; each function says what it is there, and at NaN.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dist_relu.core.array_checks import check_not_masked
from dist_relu.core.arrays import Array
from dist_relu.core.checks import Check, check_bool, check_float, check_int, check_is, check_positive, one_of, shown
from dist_relu.kernels import activations as kernels
from dist_relu.kernels import row_activations as row_kernels
from dist_relu.kernels.elementwise import Activation

__all__ = [
    "celu",
    "crelu",
    "derivative",
    "elu",
    "gelu",
    "glu",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "leaky_relu",
    "log_softmax",
    "mish",
    "prelu",
    "reglu",
    "relu",
    "relu6",
    "rrelu",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "squared_relu",
    "swiglu",
    "tanh",
    "threshold",
    "value_and_derivative",
]


def relu(x: npt.ArrayLike) -> Array:
    """max(x, 0).  Nair and Hinton (2010).

    Its slope at 0 is 0, at NaN 1.
    """
    return _value(kernels.relu, x)


def leaky_relu(x: npt.ArrayLike, negative_slope: float = 0.01) -> Array:
    """x where x > 0, else negative_slope · x.  Maas et al. (2013).

    Its slope at 0 and at NaN is negative_slope.
    """
    return _value(kernels.leaky_relu, x, *check_arguments("leaky_relu", negative_slope=negative_slope))


def prelu(x: npt.ArrayLike, weight: npt.ArrayLike) -> Array:
    """x where x > 0, else weight · x; weight: one number, or (C,) for the C channels on x's last axis.

    Its slope at 0 and at NaN is the weight.

    He et al. (2015).  Raises ValueError when the shapes don't suit each other.
    """
    x = _floats("prelu", x)
    weights, y = _prelu_weight(x, weight), np.empty_like(x)
    if x.size:
        row_kernels.prelu(x.reshape(-1), row_kernels.repeated(weights), y.reshape(-1))
    return y


def rrelu(
    x: npt.ArrayLike,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    rng: np.random.Generator | None = None,
) -> Array:
    """x where x > 0, else slope · x; in training each slope is drawn from U(lower, upper), else it is their mean.

    Its slope at 0 and at NaN is that of numbers below 0.

    Xu et al. (2015).  Raises ValueError in training without `rng`, since there is no global source of randomness.
    """
    lower, upper = check_arguments("rrelu", lower=lower, upper=upper)
    if not check_bool("rrelu(training)", training):
        return _value(kernels.leaky_relu, x, (lower + upper) / 2, name="rrelu")
    if rng is None:
        raise ValueError("rrelu(training=True) draws random slopes. Pass rng=numpy.random.default_rng(seed).")
    check_is("rrelu(rng)", rng, np.random.Generator)
    x = _floats("rrelu", x)
    y, factors, number = np.empty_like(x), rng.random(x.shape, x.dtype), x.dtype.type
    row_kernels.rrelu(x.reshape(-1), factors.reshape(-1), y.reshape(-1), number(lower), number(upper - lower))
    return y


def relu6(x: npt.ArrayLike) -> Array:
    """min(max(x, 0), 6).  Krizhevsky (2010).

    Its slope at 0 and at 6 is 0, at NaN 1.
    """
    return _value(kernels.relu6, x)


def threshold(x: npt.ArrayLike, threshold: float, value: float) -> Array:
    """x above the threshold, else `value`.

    Its slope at the threshold is 0, at NaN 1.
    """
    return _value(kernels.threshold, x, *check_arguments("threshold", threshold=threshold, value=value))


def crelu(x: npt.ArrayLike, dim: int = -1) -> Array:
    """max(x, 0) and max(-x, 0), one after the other along `dim`, which becomes twice as long.  Shang et al. (2016).

    The slopes of both at 0 are 0, at NaN 1 and -1.
    """
    rows = _rows("crelu", x, dim)
    y = np.empty((*rows.shape[:-1], 2 * rows.shape[-1]), rows.dtype)
    row_kernels.crelu(_flat_rows(rows), _flat_rows(y))
    return np.moveaxis(y, -1, dim)


def squared_relu(x: npt.ArrayLike) -> Array:
    """max(x, 0)².  So et al. (2021).

    Its slope at 0 is 0, at NaN NaN.
    """
    return _value(kernels.squared_relu, x)


def elu(x: npt.ArrayLike, alpha: float = 1.0) -> Array:
    """x where x > 0, else alpha (eˣ - 1).  Clevert et al. (2016).

    Its slope at 0 is alpha, at NaN NaN.
    """
    return _value(kernels.elu, x, *check_arguments("elu", alpha=alpha))


def selu(x: npt.ArrayLike) -> Array:
    """λ x where x > 0, else λ α (eˣ - 1), with λ = 1.0507… and α = 1.6732….  Klambauer et al. (2017).

    Its slope at 0 is λ α, at NaN NaN.
    """
    return _value(kernels.selu, x)


def celu(x: npt.ArrayLike, alpha: float = 1.0) -> Array:
    """x where x > 0, else alpha (exp(x / alpha) - 1), alpha above 0.  Barron (2017).

    Its slope at 0 is 1, at NaN NaN.
    """
    return _value(kernels.celu, x, *check_arguments("celu", alpha=alpha))


def gelu(x: npt.ArrayLike, approximate: Literal["none", "tanh"] = "none") -> Array:
    """x Φ(x), exactly or through tanh.  Hendrycks and Gimpel (2016).

    Its slope at 0 is 1/2, at NaN NaN.
    """
    check_arguments("gelu", approximate=approximate)
    return _value(kernels.gelu_by_name(approximate), x, name="gelu")


def silu(x: npt.ArrayLike) -> Array:
    """x / (1 + e⁻ˣ), also called Swish.  Elfwing et al. (2018).

    Its slope at 0 is 1/2, at NaN NaN.
    """
    return _value(kernels.silu, x)


def mish(x: npt.ArrayLike) -> Array:
    """x tanh(ln(1 + eˣ)).  Misra (2019).

    Its slope at 0 is 3/5, at NaN NaN.
    """
    return _value(kernels.mish, x)


def softplus(x: npt.ArrayLike, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """ln(1 + exp(beta x)) / beta, and x where beta x > threshold.  Dugas et al. (2001).

    Its slope at 0 is 1/2, or 1 for a threshold below 0, at NaN NaN.
    """
    return _value(kernels.softplus, x, *check_arguments("softplus", beta=beta, threshold=threshold))


def hardswish(x: npt.ArrayLike) -> Array:
    """x relu6(x + 3) / 6.  Howard et al. (2019).

    Its slope at -3 is 0, at 0 1/2, at 3 1, at NaN NaN.
    """
    return _value(kernels.hardswish, x)


def hardsigmoid(x: npt.ArrayLike) -> Array:
    """relu6(x + 3) / 6.  Courbariaux et al. (2015).

    Its slope at -3 and at 3 is 0, at 0 and at NaN 1/6.
    """
    return _value(kernels.hardsigmoid, x)


def hardtanh(x: npt.ArrayLike, min_val: float = -1.0, max_val: float = 1.0) -> Array:
    """x, at least min_val and at most max_val.  Collobert (2004).

    Its slope at min_val and at max_val is 0, between them and at NaN 1.
    """
    return _value(kernels.hardtanh, x, *check_arguments("hardtanh", min_val=min_val, max_val=max_val))


def sigmoid(x: npt.ArrayLike) -> Array:
    """1 / (1 + e⁻ˣ).

    Its slope at 0 is 1/4, at NaN NaN.
    """
    return _value(kernels.sigmoid, x)


def tanh(x: npt.ArrayLike) -> Array:
    """(eˣ - e⁻ˣ) / (eˣ + e⁻ˣ).

    Its slope at 0 is 1, at NaN NaN.
    """
    return _value(kernels.tanh, x)


def softmax(x: npt.ArrayLike, dim: int = -1) -> Array:
    """exp(x) / Σ exp(x), the sum along `dim`."""
    return _by_rows("softmax", row_kernels.softmax, x, dim)


def log_softmax(x: npt.ArrayLike, dim: int = -1) -> Array:
    """x - ln Σ exp(x), the sum along `dim`."""
    return _by_rows("log_softmax", row_kernels.log_softmax, x, dim)


def glu(x: npt.ArrayLike, dim: int = -1) -> Array:
    """a σ(b) for the halves a, b of x along `dim`.  Dauphin et al. (2017).

    Where one half is NaN, the slopes of both are.
    """
    return _gate("glu", kernels.sigmoid, x, dim)


def reglu(x: npt.ArrayLike, dim: int = -1) -> Array:
    """a max(b, 0) for the halves a, b of x along `dim`.  Shazeer (2020).

    The slope by b at 0 is 0, at NaN a.
    """
    return _gate("reglu", kernels.relu, x, dim)


def swiglu(x: npt.ArrayLike, dim: int = -1) -> Array:
    """a silu(b) for the halves a, b of x along `dim`.  Shazeer (2020).

    Where one half is NaN, the slopes of both are.
    """
    return _gate("swiglu", kernels.silu, x, dim)


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
    function: Callable[..., Array] = globals()[name]
    try:
        bound = inspect.signature(function).bind(_floats(name, x), **arguments)
    except TypeError as error:
        raise TypeError(f"{name}(): {error}") from None
    bound.apply_defaults()
    y = function(*bound.args)
    return y, _DERIVATIVES[name](y, *bound.args)


def _floats(name: str, x: npt.ArrayLike) -> Array:
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


def _value(activation: Activation, x: npt.ArrayLike, *arguments: float, name: str = "") -> Array:
    x = _floats(name or activation.name, x)
    y = np.empty_like(x)
    activation.forward(x.reshape(-1), y.reshape(-1), *activation.in_dtype(x.dtype, arguments))
    return y


def _slope(activation: Activation, y: Array, x: Array, *arguments: float) -> Array:
    slopes = np.ones_like(x)
    kept = y if activation.keeps_output else x
    activation.backward(slopes.reshape(-1), kept.reshape(-1), *activation.in_dtype(x.dtype, arguments))
    return slopes


def _prelu_weight(x: Array, weight: npt.ArrayLike) -> Array:
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


def _prelu_slope(y: Array, x: Array, weight: npt.ArrayLike) -> Array:
    return np.where(x > 0, x.dtype.type(1), np.broadcast_to(_prelu_weight(x, weight), x.shape))


def _rrelu_slope(y: Array, x: Array, lower: float, upper: float, training: bool, rng: object) -> Array:
    if training:
        raise ValueError("rrelu draws its slopes anew in training, so it has no derivative to return.")
    return _slope(kernels.leaky_relu, y, x, (lower + upper) / 2)


def _rows(name: str, x: npt.ArrayLike, dim: int) -> Array:
    """x with `dim` as its last axis, contiguous."""
    x = _floats(name, x)
    if x.ndim == 0:
        raise ValueError(f"{name} works along an axis, but x is a single number.")
    dim = check_int(f"{name}(dim)", dim, -x.ndim, x.ndim - 1)
    return np.ascontiguousarray(np.moveaxis(x, dim, -1))


def _flat_rows(x: Array) -> Array:
    return x.reshape(int(np.prod(x.shape[:-1])), x.shape[-1])


def _by_rows(name: str, kernel: Callable[[Array, Array], None], x: npt.ArrayLike, dim: int) -> Array:
    rows = _rows(name, x, dim)
    y = np.empty_like(rows)
    if rows.size:
        kernel(_flat_rows(rows), _flat_rows(y))
    return np.moveaxis(y, -1, dim)


def _softmax_jacobian(y: Array, x: Array, dim: int) -> Array:
    p = np.moveaxis(y, dim, -1)
    jacobian: Array = p[..., :, None] * (np.eye(p.shape[-1], dtype=p.dtype) - p[..., None, :])
    return jacobian


def _log_softmax_jacobian(y: Array, x: Array, dim: int) -> Array:
    p = np.exp(np.moveaxis(y, dim, -1))
    jacobian: Array = np.eye(p.shape[-1], dtype=p.dtype) - p[..., None, :]
    return jacobian


def _halved(name: str, x: npt.ArrayLike, dim: int) -> Array:
    rows = _rows(name, x, dim)
    if rows.shape[-1] % 2:
        raise ValueError(f"{name} takes x apart into halves, but axis dim={dim} has {rows.shape[-1]} elements.")
    return rows


def _gate(name: str, activation: Activation, x: npt.ArrayLike, dim: int) -> Array:
    rows = _halved(name, x, dim)
    y = np.empty((*rows.shape[:-1], rows.shape[-1] // 2), rows.dtype)
    activation.gate(_flat_rows(rows), _flat_rows(y))
    return np.moveaxis(y, -1, dim)


def _gate_slope(name: str, activation: Activation, y: Array, x: Array, dim: int) -> Array:
    rows = _halved(name, x, dim)
    slopes = np.empty_like(rows)
    dy = np.ones((*rows.shape[:-1], rows.shape[-1] // 2), rows.dtype)
    activation.gate_backward(_flat_rows(dy), _flat_rows(rows), _flat_rows(slopes))
    return np.moveaxis(slopes, -1, dim)


def _crelu_slope(y: Array, x: Array, dim: int) -> Array:
    above, below = np.split(np.where(y <= 0, y.dtype.type(0), y.dtype.type(1)), 2, axis=dim)
    return np.concatenate([above, -below], axis=dim)


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

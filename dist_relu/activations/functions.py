"""The activation functions, each of an array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

from dist_relu.activations.arguments import check_arguments, flat_rows, floats, halved, prelu_weight, rows_along
from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_bool, check_is
from dist_relu.kernels import activations as kernels
from dist_relu.kernels import row_activations as row_kernels
from dist_relu.kernels.elementwise import Activation


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
    x = floats("prelu", x)
    weights, y = prelu_weight(x, weight), np.empty_like(x)
    if x.size:
        row_kernels.prelu(x.reshape(-1), weights, y.reshape(-1))
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
    x = floats("rrelu", x)
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
    rows = rows_along("crelu", x, dim)
    y = np.empty((*rows.shape[:-1], 2 * rows.shape[-1]), rows.dtype)
    row_kernels.crelu(flat_rows(rows), flat_rows(y))
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


def _value(activation: Activation, x: npt.ArrayLike, *arguments: float, name: str = "") -> Array:
    x = floats(name or activation.name, x)
    y = np.empty_like(x)
    activation.forward(x.reshape(-1), y.reshape(-1), *activation.in_dtype(x.dtype, arguments))
    return y


def _by_rows(name: str, kernel: Callable[[Array, Array], None], x: npt.ArrayLike, dim: int) -> Array:
    rows = rows_along(name, x, dim)
    y = np.empty_like(rows)
    if rows.size:
        kernel(flat_rows(rows), flat_rows(y))
    return np.moveaxis(y, -1, dim)


def _gate(name: str, activation: Activation, x: npt.ArrayLike, dim: int) -> Array:
    rows = halved(name, x, dim)
    y = np.empty((*rows.shape[:-1], rows.shape[-1] // 2), rows.dtype)
    activation.gate(flat_rows(rows), flat_rows(y))
    return np.moveaxis(y, -1, dim)

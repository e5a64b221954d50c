"""The ReLU family: one table of scalar pairs, value and slope, and the loops over arrays around them.

A slope is a function of the input x or of the output y, as its first argument says; so a layer keeps just one of the
two. Where y is enough it is y, since then a layer can compute in place. All pairs let NaN through, take the limits at
±inf, and at a kink have the slope that PyTorch takes.

`n` elements, `N` samples, `K` units. Arrays of a call have one dtype, and arguments are numbers of that dtype.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, final

import numpy as np

from dist_relu.arrays import Array
from dist_relu.kernels.elementary import clamp, decay, exp, expm1, log1p, normal_cdf, normal_density
from dist_relu.kernels.elementary import sigmoid as logistic
from dist_relu.kernels.elementary import tanh as hyperbolic_tangent
from dist_relu.kernels.scalars import fma, scalar, specialise
from dist_relu.kernels.update import add

Scalar = Callable[..., float]
Kernel = Callable[..., None]

# What stands for the scalars of an activation in the loops below.


def value(x: float, *arguments: float) -> float:
    """y from x."""
    raise NotImplementedError


def slope(kept: float, *arguments: float) -> float:
    """dy/dx from x or y."""
    raise NotImplementedError


def kept_of(x: float) -> float:
    """What the slope is a function of, x or y, from x."""
    raise NotImplementedError


def forward(x: Array, y: Array, *arguments: float) -> None:
    """y = value(x); both (n,)."""
    for i in range(x.shape[0]):
        y[i] = value(x[i], *arguments)


@scalar
def _times(dy: float, slope: float) -> float:
    """dy · slope, and 0 wherever the slope is 0, even for an infinite dy.

    Adding 0 changes nothing but -0.0: without it LLVM sees that dy stays as it is where the slope is 1 and stores the
    zeros only, through a mask, which is slow.
    """
    return 0.0 if slope == 0.0 else dy * slope + 0.0


def backward(dy: Array, kept: Array, *arguments: float) -> None:
    """dy = dy · slope(kept) in place; both (n,).

    In place because a loop whose output may overlap another input is not vectorised.
    """
    for i in range(dy.shape[0]):
        dy[i] = _times(dy[i], slope(kept[i], *arguments))


def add_bias(z: Array, bias: Array, *arguments: float) -> None:
    """z = value(z + bias) in place; z: (N, K), bias: (K,)."""
    for n in range(z.shape[0]):
        for k in range(z.shape[1]):
            z[n, k] = value(z[n, k] + bias[k], *arguments)


def backward_sum_rows(dy: Array, y: Array, total: Array, *arguments: float) -> None:
    """`backward` from the output, and total = the sum of the rows of the result; dy, y: (N, K), total: (K,)."""
    total[:] = 0
    for n in range(dy.shape[0]):
        for k in range(dy.shape[1]):
            dy[n, k] = _times(dy[n, k], slope(y[n, k], *arguments))
        add(total, dy[n])


def add_bias_into(z: Array, bias: Array, y: Array, *arguments: float) -> None:
    """y = value(z + bias); z, y: (N, K), bias: (K,)."""
    for n in range(z.shape[0]):
        for k in range(z.shape[1]):
            y[n, k] = value(z[n, k] + bias[k], *arguments)


def add_bias_backward_sum_rows(dy: Array, z: Array, bias: Array, total: Array, *arguments: float) -> None:
    """`backward` from the input z + bias, and total = the sum of the rows of the result; total: (K,)."""
    total[:] = 0
    for n in range(dy.shape[0]):
        for k in range(dy.shape[1]):
            dy[n, k] = _times(dy[n, k], slope(z[n, k] + bias[k], *arguments))
        add(total, dy[n])


def gate(x: Array, y: Array) -> None:
    """y = a · value(b) for the halves a, b of the rows of x; x: (N, 2K), y: (N, K)."""
    width = y.shape[1]
    for n in range(y.shape[0]):
        a, b, out = x[n, :width], x[n, width:], y[n]
        for k in range(width):
            out[k] = a[k] * value(b[k])


def gate_backward(dy: Array, x: Array, dx: Array) -> None:
    """dx = the gradient of the rows a, b of `gate` from that of its output; dx: (N, 2K), not x."""
    width = dy.shape[1]
    for n in range(dy.shape[0]):
        d, a, b, da, db = dy[n], x[n, :width], x[n, width:], dx[n, :width], dx[n, width:]
        for k in range(width):
            da[k] = d[k] * value(b[k])
        for k in range(width):
            db[k] = _times(d[k] * a[k], slope(kept_of(b[k])))


@scalar
def _same(x: float) -> float:
    return x


@final
class Activation:
    """A pair of value and slope, and its kernels, each compiled when it is first used.

    keeps_output: whether the slope is a function of the output.
    """

    def __init__(self, value: Scalar) -> None:
        self.name = value.__name__
        self._value = scalar(value)

    def slope(self, slope: Scalar) -> None:
        """Take `slope` as the derivative: a function of x or of y, and of the same further arguments."""
        self._slope = scalar(slope)
        self.keeps_output = next(iter(inspect.signature(slope).parameters)) == "y"

    def in_dtype(self, dtype: np.dtype[Any], arguments: Sequence[float]) -> list[Any]:
        """The arguments as kernels take them."""
        return [dtype.type(argument) for argument in arguments]

    def _specialise(self, loop: Kernel) -> Kernel:
        kept_of = self._value if self.keeps_output else _same
        return specialise(loop, f"{self.name}_{loop.__name__}", value=self._value, slope=self._slope, kept_of=kept_of)

    @cached_property
    def forward(self) -> Kernel:
        return self._specialise(forward)

    @cached_property
    def backward(self) -> Kernel:
        return self._specialise(backward)

    @cached_property
    def add_bias(self) -> Kernel:
        return self._specialise(add_bias)

    @cached_property
    def backward_sum_rows(self) -> Kernel:
        return self._specialise(backward_sum_rows)

    @cached_property
    def add_bias_into(self) -> Kernel:
        return self._specialise(add_bias_into)

    @cached_property
    def add_bias_backward_sum_rows(self) -> Kernel:
        return self._specialise(add_bias_backward_sum_rows)

    @cached_property
    def gate(self) -> Kernel:
        return self._specialise(gate)

    @cached_property
    def gate_backward(self) -> Kernel:
        return self._specialise(gate_backward)


@Activation
def relu(x: float) -> float:
    """max(x, 0), with -0.0 as 0.0.  Nair and Hinton (2010)."""
    return 0.0 if x <= 0.0 else x


@relu.slope
def _(y: float) -> float:
    return 0.0 if y <= 0.0 else 1.0


@Activation
def leaky_relu(x: float, negative_slope: float) -> float:
    """max(x, 0) + negative_slope min(x, 0).  Maas et al. (2013)."""
    return x if x > 0.0 else negative_slope * x


@leaky_relu.slope
def _(x: float, negative_slope: float) -> float:
    return 1.0 if x > 0.0 else negative_slope


@Activation
def relu6(x: float) -> float:
    """min(max(x, 0), 6).  Krizhevsky (2010)."""
    return 0.0 if x <= 0.0 else (6.0 if x > 6.0 else x)


@relu6.slope
def _(y: float) -> float:
    return 0.0 if y <= 0.0 or y >= 6.0 else 1.0


@Activation
def threshold(x: float, threshold: float, value: float) -> float:
    """x above the threshold, else `value`."""
    return value if x <= threshold else x


@threshold.slope
def _(x: float, threshold: float, value: float) -> float:
    return 0.0 if x <= threshold else 1.0


@Activation
def squared_relu(x: float) -> float:
    """max(x, 0)².  So et al. (2021)."""
    return 0.0 if x <= 0.0 else x * x


@squared_relu.slope
def _(x: float) -> float:
    return 0.0 if x <= 0.0 else 2.0 * x


@Activation
def elu(x: float, alpha: float) -> float:
    """x where x > 0, else alpha (eˣ - 1).  Clevert et al. (2016)."""
    return x if x > 0.0 else alpha * expm1(x)


@elu.slope
def _(x: float, alpha: float) -> float:
    return 1.0 if x > 0.0 else alpha * exp(x)


@Activation
def selu(x: float) -> float:
    """λ x where x > 0, else λ α (eˣ - 1).  Klambauer et al. (2017)."""
    return 1.0507009873554805 * x if x > 0.0 else 1.7580993408473766 * expm1(x)


@selu.slope
def _(x: float) -> float:
    return 1.0507009873554805 if x > 0.0 else 1.7580993408473766 * exp(x)


@Activation
def celu(x: float, alpha: float) -> float:
    """x where x > 0, else alpha (exp(x / alpha) - 1), which has no kink.  Barron (2017)."""
    return x if x > 0.0 else alpha * expm1(x / alpha)


@celu.slope
def _(x: float, alpha: float) -> float:
    return 1.0 if x > 0.0 else exp(x / alpha)


@scalar
def _bounded_below(x: float) -> float:
    """x where a tail of it is not 0, so that -inf times that 0 is not NaN."""
    return -1000.0 if x < -1000.0 else x


@scalar
def _bounded(x: float) -> float:
    """The same for both tails."""
    return clamp(x, -1000.0, 1000.0)


@Activation
def gelu(x: float) -> float:
    """x Φ(x), with Φ the normal distribution.  Hendrycks and Gimpel (2016)."""
    return _bounded_below(x) * normal_cdf(x)


@gelu.slope
def _(x: float) -> float:
    return fma(_bounded(x), normal_density(x), normal_cdf(x))  # type: ignore[no-any-return]


@Activation
def gelu_tanh(x: float) -> float:
    """x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2.  Hendrycks and Gimpel (2016)."""
    return _bounded_below(x) * logistic(_gelu_logit(x))


@gelu_tanh.slope
def _(x: float) -> float:
    x = _bounded(x)
    return _slope_of_gated(x * (1.5957691216057308 + 0.21406444881780073 * x * x), _gelu_logit(x))


@scalar
def _slope_of_gated(factor: float, z: float) -> float:
    """σ(z) (1 + factor σ(-z)): the derivative of x σ(z) for factor = x dz/dx."""
    e = decay(abs(z))
    r = 1.0 / (1.0 + e)
    rest = e * r
    return (rest if z < 0.0 else r) * (1.0 + factor * (r if z < 0.0 else rest))


@scalar
def _gelu_logit(x: float) -> float:
    return x * (1.5957691216057308 + 0.07135481627260025 * x * x)


@Activation
def silu(x: float) -> float:
    """x / (1 + e⁻ˣ).  Elfwing et al. (2018)."""
    return _bounded_below(x) * logistic(x)


@silu.slope
def _(x: float) -> float:
    return _slope_of_gated(_bounded(x), x)


@Activation
def mish(x: float) -> float:
    """x tanh(ln(1 + eˣ)).  Misra (2019)."""
    e = decay(abs(x))
    p = e * (e + 2.0) if x < 0.0 else 1.0 + 2.0 * e
    q = 2.0 if x < 0.0 else 2.0 * e * e
    return _bounded_below(x) * (p / (p + q))


@mish.slope
def _(x: float) -> float:
    e = decay(abs(x))
    p = e * (e + 2.0) if x < 0.0 else 1.0 + 2.0 * e
    q = 2.0 if x < 0.0 else 2.0 * e * e
    r = 4.0 * e * (1.0 + e) if x < 0.0 else 4.0 * e * e * (1.0 + e)
    d = p + q
    return (p + _bounded(x) * r / d) / d


@Activation
def softplus(x: float, beta: float, threshold: float) -> float:
    """ln(1 + exp(beta x)) / beta, and x where beta x > threshold.  Dugas et al. (2001)."""
    z = beta * x
    return x if z > threshold else ((z if z > 0.0 else 0.0) + log1p(decay(abs(z)))) / beta


@softplus.slope
def _(x: float, beta: float, threshold: float) -> float:
    z = beta * x
    return 1.0 if z > threshold else logistic(z)


@Activation
def hardswish(x: float) -> float:
    """x relu6(x + 3) / 6.  Howard et al. (2019)."""
    return 0.0 if x <= -3.0 else (x if x >= 3.0 else x * (x + 3.0) / 6.0)


@hardswish.slope
def _(x: float) -> float:
    return 0.0 if x <= -3.0 else (1.0 if x >= 3.0 else x / 3.0 + 0.5)


@Activation
def hardsigmoid(x: float) -> float:
    """relu6(x + 3) / 6.  Courbariaux et al. (2015)."""
    return 0.0 if x <= -3.0 else (1.0 if x >= 3.0 else (x + 3.0) / 6.0)


@hardsigmoid.slope
def _(x: float) -> float:
    return 0.0 if x <= -3.0 or x >= 3.0 else 0.16666666666666666


@Activation
def hardtanh(x: float, min_val: float, max_val: float) -> float:
    """x, at least min_val and at most max_val.  Collobert (2004)."""
    return clamp(x, min_val, max_val)


@hardtanh.slope
def _(y: float, min_val: float, max_val: float) -> float:
    return 0.0 if y <= min_val or y >= max_val else 1.0


@Activation
def sigmoid(x: float) -> float:
    """1 / (1 + e⁻ˣ)."""
    return logistic(x)


@sigmoid.slope
def _(y: float) -> float:
    return y * (1.0 - y)


@Activation
def tanh(x: float) -> float:
    """(eˣ - e⁻ˣ) / (eˣ + e⁻ˣ)."""
    return hyperbolic_tangent(x)


@tanh.slope
def _(y: float) -> float:
    return 1.0 - y * y


ELEMENTWISE = [
    relu,
    leaky_relu,
    relu6,
    threshold,
    squared_relu,
    elu,
    selu,
    celu,
    gelu,
    silu,
    mish,
    softplus,
    hardswish,
    hardsigmoid,
    hardtanh,
    sigmoid,
    tanh,
]


def gelu_by_name(approximate: str) -> Activation:
    """GELU as PyTorch's argument `approximate` says.  Raises ValueError for another word."""
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu(approximate={approximate!r}): expected 'none' or 'tanh'.")
    return gelu_tanh if approximate == "tanh" else gelu

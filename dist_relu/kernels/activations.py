"""The ReLU family as a table of scalar pairs, value and slope.

All pairs let NaN through and take the limits at ±inf, and at a kink the slope is the one that PyTorch takes.
"""

from __future__ import annotations

from dist_relu.kernels.elementary import clamp, exp, expm1, log1p, normal_cdf, normal_density
from dist_relu.kernels.elementary import sigmoid as logistic
from dist_relu.kernels.elementary import tanh as hyperbolic_tangent
from dist_relu.kernels.elementwise import Activation
from dist_relu.kernels.jit import scalar
from dist_relu.kernels.llvm import fma


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
    """Return x where the lower tail is not 0, so that -inf times that 0 is not NaN."""
    return -1000.0 if x < -1000.0 else x


@scalar
def _bounded(x: float) -> float:
    """Return x where neither tail is 0, so that ±inf times that 0 is not NaN."""
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
    e = exp(-abs(z))
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
    e = exp(-abs(x))
    p = e * (e + 2.0) if x < 0.0 else 1.0 + 2.0 * e
    q = 2.0 if x < 0.0 else 2.0 * e * e
    return _bounded_below(x) * (p / (p + q))


@mish.slope
def _(x: float) -> float:
    e = exp(-abs(x))
    p = e * (e + 2.0) if x < 0.0 else 1.0 + 2.0 * e
    q = 2.0 if x < 0.0 else 2.0 * e * e
    r = 4.0 * e * (1.0 + e) if x < 0.0 else 4.0 * e * e * (1.0 + e)
    d = p + q
    return (p + _bounded(x) * r / d) / d


@Activation
def softplus(x: float, beta: float, threshold: float) -> float:
    """ln(1 + exp(beta x)) / beta, and x where beta x > threshold.  Dugas et al. (2001)."""
    z = beta * x
    return x if z > threshold else ((z if z > 0.0 else 0.0) + log1p(exp(-abs(z)))) / beta


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

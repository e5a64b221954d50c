"""Layers of a function of one number: of every element of their input, which may have any shape."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, cast, final

from dist_relu.activations.arguments import check_arguments
from dist_relu.core.arrays import Array
from dist_relu.kernels import activations as kernels
from dist_relu.kernels.elementwise import Activation
from dist_relu.nn.layer import PLAIN, Layer, Param, Pass, Shape

Arguments = tuple[float, ...]


def check_arguments_of(layer: Layer, function: str) -> None:
    """Let the fields of a layer through the checks that the function of its name has."""
    names = [field.name for field in fields(cast(Any, layer)) if field.init]
    values = check_arguments(function, type(layer).__name__, **{name: getattr(layer, name) for name in names})
    for name, value in zip(names, values, strict=True):
        setattr(layer, name, value)


class Elementwise(Layer):
    """y = f(x), element by element.

    The final layers below name f and hold its arguments; how f is computed, and how it is fused with the layer before
    it, is nobody's business but this class's and `dist_relu.nn.fusion`'s.
    """

    _kept: Array

    @abstractmethod
    def function(self) -> tuple[Activation, Arguments]:
        """f, and its arguments beside x."""

    def build(self, input_shape: Shape) -> Shape:
        return input_shape

    def params(self) -> Sequence[Param]:
        return []

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        activation, arguments = self.function()
        y = run.empty(x.shape, x.dtype)
        activation.forward(x.reshape(-1), y.reshape(-1), *activation.in_dtype(x.dtype, arguments))
        self._kept = y if activation.keeps_output else x
        return y

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        activation, arguments = self.function()
        dx = run.writable(dy)
        activation.backward(dx.reshape(-1), self._kept.reshape(-1), *activation.in_dtype(dx.dtype, arguments))
        return dx


@final
@dataclass(eq=False)
class ReLU(Elementwise):
    """max(x, 0).  Nair and Hinton (2010).

    Its slope at 0 is 0, at NaN 1.
    """

    def function(self) -> tuple[Activation, Arguments]:
        return kernels.relu, ()


@final
@dataclass(eq=False)
class LeakyReLU(Elementwise):
    """x where x > 0, else negative_slope · x.  Maas et al. (2013).

    Its slope at 0 and at NaN is negative_slope.
    """

    negative_slope: float = 0.01

    def __post_init__(self) -> None:
        check_arguments_of(self, "leaky_relu")

    def function(self) -> tuple[Activation, Arguments]:
        return kernels.leaky_relu, (self.negative_slope,)


@final
@dataclass(eq=False)
class ReLU6(Elementwise):
    """min(max(x, 0), 6).  Krizhevsky (2010).

    Its slope at 0 and at 6 is 0, at NaN 1.
    """

    def function(self) -> tuple[Activation, Arguments]:
        return kernels.relu6, ()


@final
@dataclass(eq=False)
class Threshold(Elementwise):
    """x above the threshold, else `value`.

    Its slope at the threshold is 0, at NaN 1.
    """

    threshold: float
    value: float

    def __post_init__(self) -> None:
        check_arguments_of(self, "threshold")

    def function(self) -> tuple[Activation, Arguments]:
        return kernels.threshold, (self.threshold, self.value)


@final
@dataclass(eq=False)
class SquaredReLU(Elementwise):
    """max(x, 0)².  So et al. (2021).

    Its slope at 0 is 0, at NaN NaN.
    """

    def function(self) -> tuple[Activation, Arguments]:
        return kernels.squared_relu, ()


@final
@dataclass(eq=False)
class ELU(Elementwise):
    """x where x > 0, else alpha (eˣ - 1).  Clevert et al. (2016).

    Its slope at 0 is alpha, at NaN NaN.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_arguments_of(self, "elu")

    def function(self) -> tuple[Activation, Arguments]:
        return kernels.elu, (self.alpha,)


@final
@dataclass(eq=False)
class SELU(Elementwise):
    """λ x where x > 0, else λ α (eˣ - 1): keeps mean 0 and variance 1.  Klambauer et al. (2017).

    Its slope at 0 is λ α, at NaN NaN.
    """

    def function(self) -> tuple[Activation, Arguments]:
        return kernels.selu, ()


@final
@dataclass(eq=False)
class CELU(Elementwise):
    """x where x > 0, else alpha (exp(x / alpha) - 1), alpha above 0.  Barron (2017).

    Its slope at 0 is 1, at NaN NaN.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_arguments_of(self, "celu")

    def function(self) -> tuple[Activation, Arguments]:
        return kernels.celu, (self.alpha,)


@final
@dataclass(eq=False)
class GELU(Elementwise):
    """x Φ(x), exactly or through tanh.  Hendrycks and Gimpel (2016).

    Its slope at 0 is 1/2, at NaN NaN.
    """

    approximate: Literal["none", "tanh"] = "none"

    def __post_init__(self) -> None:
        check_arguments_of(self, "gelu")

    def function(self) -> tuple[Activation, Arguments]:
        return kernels.gelu_by_name(self.approximate), ()


@final
@dataclass(eq=False)
class SiLU(Elementwise):
    """x / (1 + e⁻ˣ), also called Swish.  Elfwing et al. (2018).

    Its slope at 0 is 1/2, at NaN NaN.
    """

    def function(self) -> tuple[Activation, Arguments]:
        return kernels.silu, ()


@final
@dataclass(eq=False)
class Mish(Elementwise):
    """x tanh(ln(1 + eˣ)).  Misra (2019).

    Its slope at 0 is 3/5, at NaN NaN.
    """

    def function(self) -> tuple[Activation, Arguments]:
        return kernels.mish, ()


@final
@dataclass(eq=False)
class Softplus(Elementwise):
    """ln(1 + exp(beta x)) / beta, and x where beta x > threshold.  Dugas et al. (2001).

    Its slope at 0 is 1/2, or 1 for a threshold below 0, at NaN NaN.
    """

    beta: float = 1.0
    threshold: float = 20.0

    def __post_init__(self) -> None:
        check_arguments_of(self, "softplus")

    def function(self) -> tuple[Activation, Arguments]:
        return kernels.softplus, (self.beta, self.threshold)


@final
@dataclass(eq=False)
class Hardswish(Elementwise):
    """x relu6(x + 3) / 6.  Howard et al. (2019).

    Its slope at -3 is 0, at 0 1/2, at 3 1, at NaN NaN.
    """

    def function(self) -> tuple[Activation, Arguments]:
        return kernels.hardswish, ()


@final
@dataclass(eq=False)
class Hardsigmoid(Elementwise):
    """relu6(x + 3) / 6.  Courbariaux et al. (2015).

    Its slope at -3 and at 3 is 0, at 0 and at NaN 1/6.
    """

    def function(self) -> tuple[Activation, Arguments]:
        return kernels.hardsigmoid, ()


@final
@dataclass(eq=False)
class Hardtanh(Elementwise):
    """x, at least min_val and at most max_val.  Collobert (2004).

    Its slope at min_val and at max_val is 0, between them and at NaN 1.
    """

    min_val: float = -1.0
    max_val: float = 1.0

    def __post_init__(self) -> None:
        check_arguments_of(self, "hardtanh")

    def function(self) -> tuple[Activation, Arguments]:
        return kernels.hardtanh, (self.min_val, self.max_val)


@final
@dataclass(eq=False)
class Sigmoid(Elementwise):
    """1 / (1 + e⁻ˣ).

    Its slope at 0 is 1/4, at NaN NaN.
    """

    def function(self) -> tuple[Activation, Arguments]:
        return kernels.sigmoid, ()


@final
@dataclass(eq=False)
class Tanh(Elementwise):
    """(eˣ - e⁻ˣ) / (eˣ + e⁻ˣ).

    Its slope at 0 is 1, at NaN NaN.
    """

    def function(self) -> tuple[Activation, Arguments]:
        return kernels.tanh, ()

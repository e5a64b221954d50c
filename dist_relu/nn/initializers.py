"""Initial values of parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import prod, sqrt
from typing import Literal, final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_choice, check_fields, check_float, check_not_negative, one_of
from dist_relu.kernels.orthogonal import orthonormalize

Fan = Literal["fan_in", "fan_out"]

_GAINS = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": sqrt(2), "selu": 3 / 4}


def gain(activation: str, slope: float = 0.01) -> float:
    """By how much initial weights must be larger before `activation` than before none.

    activation: "linear", "sigmoid", "tanh", "relu", "leaky_relu" (of `slope`) or "selu".  The values are those of
    torch.nn.init.calculate_gain; He et al. (2015), equations 10 and 15.
    """
    check_choice("gain(activation)", activation, [*_GAINS, "leaky_relu"])
    slope = check_float("gain(slope)", slope)
    return sqrt(2 / (1 + slope**2)) if activation == "leaky_relu" else _GAINS[activation]


class Initializer(ABC):
    """A rule for initial values."""

    @abstractmethod
    def draw(self, shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
        """Values of `shape`, float64, for a parameter with `fan_in` inputs and `fan_out` outputs a unit."""


@final
@dataclass(frozen=True)
class HeNormal(Initializer):
    """N(0, gain² / fan): with the gain of ReLU it keeps the variance of activations.  He et al. (2015), equation 10.

    mode: "fan_in" for the variance of activations, "fan_out" for that of gradients (equation 14).
    """

    gain: float = gain("relu")
    mode: Fan = "fan_in"

    def __post_init__(self) -> None:
        check_fields(self, gain=check_not_negative, mode=one_of("fan_in", "fan_out"))

    def draw(self, shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
        return rng.normal(0.0, self.gain / sqrt(fan_in if self.mode == "fan_in" else fan_out), shape)


@final
@dataclass(frozen=True)
class HeUniform(Initializer):
    """U(-a, a) with a² = 3 gain² / fan, of the same variance as `HeNormal`."""

    gain: float = gain("relu")
    mode: Fan = "fan_in"

    def __post_init__(self) -> None:
        check_fields(self, gain=check_not_negative, mode=one_of("fan_in", "fan_out"))

    def draw(self, shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
        limit = self.gain * sqrt(3 / (fan_in if self.mode == "fan_in" else fan_out))
        return rng.uniform(-limit, limit, shape)


@final
@dataclass(frozen=True)
class GlorotNormal(Initializer):
    """N(0, 2 gain² / (fan_in + fan_out)).  Glorot and Bengio (2010), equation 12."""

    gain: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self, gain=check_not_negative)

    def draw(self, shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
        return rng.normal(0.0, self.gain * sqrt(2 / (fan_in + fan_out)), shape)


@final
@dataclass(frozen=True)
class GlorotUniform(Initializer):
    """U(-a, a) with a² = 6 gain² / (fan_in + fan_out).  Glorot and Bengio (2010), equation 16."""

    gain: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self, gain=check_not_negative)

    def draw(self, shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
        limit = self.gain * sqrt(6 / (fan_in + fan_out))
        return rng.uniform(-limit, limit, shape)


@final
@dataclass(frozen=True)
class Normal(Initializer):
    """N(0, std²)."""

    std: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self, std=check_not_negative)

    def draw(self, shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
        return rng.normal(0.0, self.std, shape)


@final
@dataclass(frozen=True)
class Orthogonal(Initializer):
    """A random matrix with orthonormal rows or columns, whichever are fewer, times `gain`.  Saxe et al. (2014).

    A parameter of more than two dimensions counts as the matrix (all but the last, last). Raises ValueError for one
    of fewer.
    """

    gain: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self, gain=check_not_negative)

    def draw(self, shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
        if len(shape) < 2:
            raise ValueError(f"Orthogonal() fills matrices, not a parameter of shape {shape}.")
        num_rows, num_cols = prod(shape[:-1]), shape[-1]
        normal = rng.standard_normal((max(num_rows, num_cols), min(num_rows, num_cols)))
        vectors = np.ascontiguousarray(normal.T)
        orthonormalize(vectors)  # uniform over orthogonal matrices, as no vector is turned; Mezzadri (2007)
        vectors *= self.gain
        return (vectors.T if num_rows >= num_cols else vectors).reshape(shape)


@final
@dataclass(frozen=True)
class Identity(Initializer):
    """`scale` on the diagonal of a matrix, as recurrent weights before ReLU begin.  Le et al. (2015)."""

    scale: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self, scale=check_float)

    def draw(self, shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
        if len(shape) != 2:
            raise ValueError(f"Identity() fills matrices, not a parameter of shape {shape}.")
        return self.scale * np.eye(*shape)


@final
@dataclass(frozen=True)
class Constant(Initializer):
    """The same value everywhere."""

    value: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self, value=check_float)

    def draw(self, shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
        return np.full(shape, float(self.value))

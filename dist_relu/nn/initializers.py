"""Initial values of parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import sqrt
from typing import final

import numpy as np

from dist_relu.arrays import Array


class Initializer(ABC):
    """A rule for initial values."""

    @abstractmethod
    def draw(self, shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
        """Values of `shape`, float64, for a parameter with `fan_in` inputs and `fan_out` outputs a unit."""


@final
@dataclass(frozen=True)
class HeNormal(Initializer):
    """N(0, 2 / fan_in): keeps the variance of activations through ReLU.  He et al. (2015), equation 10."""

    def draw(self, shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
        return rng.normal(0.0, sqrt(2 / fan_in), shape)


@final
@dataclass(frozen=True)
class HeUniform(Initializer):
    """U(-a, a) with a² = 6 / fan_in, of the same variance as `HeNormal`."""

    def draw(self, shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
        limit = sqrt(6 / fan_in)
        return rng.uniform(-limit, limit, shape)


@final
@dataclass(frozen=True)
class GlorotNormal(Initializer):
    """N(0, 2 / (fan_in + fan_out)).  Glorot and Bengio (2010), equation 12."""

    def draw(self, shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
        return rng.normal(0.0, sqrt(2 / (fan_in + fan_out)), shape)


@final
@dataclass(frozen=True)
class GlorotUniform(Initializer):
    """U(-a, a) with a² = 6 / (fan_in + fan_out).  Glorot and Bengio (2010), equation 16."""

    def draw(self, shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
        limit = sqrt(6 / (fan_in + fan_out))
        return rng.uniform(-limit, limit, shape)


@final
@dataclass(frozen=True)
class Normal(Initializer):
    """N(0, std²)."""

    std: float = 1.0

    def draw(self, shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
        return rng.normal(0.0, self.std, shape)


@final
@dataclass(frozen=True)
class Constant(Initializer):
    """All `value`."""

    value: float = 0.0

    def draw(self, shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
        return np.full(shape, self.value)


@final
@dataclass(frozen=True)
class Identity(Initializer):
    """`scale` times the identity, for recurrent weights (units, units).  Le, Jaitly and Hinton (2015)."""

    scale: float = 1.0

    def draw(self, shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
        rows, columns = shape
        return self.scale * np.eye(rows, columns)

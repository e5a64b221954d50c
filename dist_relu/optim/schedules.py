"""Learning rates as functions of the time in epochs, so that they don't depend on the batch size."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import cos, pi
from typing import final


class Schedule(ABC):
    """A learning rate over time."""

    @abstractmethod
    def at(self, epoch: float) -> float:
        """The learning rate `epoch` epochs after the start; fractions are within an epoch."""


@final
@dataclass(frozen=True)
class Constant(Schedule):
    """Always `lr`."""

    lr: float

    def at(self, epoch: float) -> float:
        return self.lr


@final
@dataclass(frozen=True)
class Step(Schedule):
    """`lr`, times `factor` after every `every` epochs."""

    lr: float
    every: float = 10
    factor: float = 0.1

    def __post_init__(self) -> None:
        if self.every <= 0:
            raise ValueError(f"Step(every={self.every}): must be above 0.")

    def at(self, epoch: float) -> float:
        return float(self.lr * self.factor ** (epoch // self.every))


@final
@dataclass(frozen=True)
class Cosine(Schedule):
    """From `lr` to `final` over `epochs` epochs along half a cosine.  Loshchilov and Hutter (2017), equation 5."""

    lr: float
    epochs: float
    final: float = 0.0

    def __post_init__(self) -> None:
        if self.epochs <= 0:
            raise ValueError(f"Cosine(epochs={self.epochs}): must be above 0.")

    def at(self, epoch: float) -> float:
        done = min(epoch / self.epochs, 1.0)
        return self.final + (self.lr - self.final) * (1 + cos(pi * done)) / 2


@final
@dataclass(frozen=True)
class WarmUp(Schedule):
    """Another schedule, scaled from 0 to 1 linearly over the first `epochs` epochs.  Goyal et al. (2017), 2.2."""

    then: Schedule
    epochs: float = 1

    def __post_init__(self) -> None:
        if self.epochs <= 0:
            raise ValueError(f"WarmUp(epochs={self.epochs}): must be above 0.")

    def at(self, epoch: float) -> float:
        return self.then.at(epoch) * min(epoch / self.epochs, 1.0)

"""Learning rates as functions of the time in epochs, so that they don't depend on the batch size."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import cos, pi
from typing import final

from dist_relu.core.checks import check_fields, check_not_negative, check_positive, instance_of


class Schedule(ABC):
    """A learning rate over time.  Schedules raise ValueError for numbers that make no sense."""

    @abstractmethod
    def at(self, epoch: float) -> float:
        """The learning rate `epoch` epochs after the start.  A step asks for that of its middle."""


@final
@dataclass(frozen=True)
class Constant(Schedule):
    """Always `lr`."""

    lr: float

    def __post_init__(self) -> None:
        check_fields(self, lr=check_positive)

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
        check_fields(self, lr=check_positive, every=check_positive, factor=check_positive)

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
        check_fields(self, lr=check_positive, epochs=check_positive, final=check_not_negative)
        if self.final > self.lr:
            raise ValueError(f"Cosine(final={self.final}): must be at least 0 and at most lr={self.lr}.")

    def at(self, epoch: float) -> float:
        done = min(epoch / self.epochs, 1.0)
        return self.final + (self.lr - self.final) * (1 + cos(pi * done)) / 2


@final
@dataclass(frozen=True)
class Exponential(Schedule):
    """From `lr` to `final` over `epochs` epochs, by the same factor in any equal time; then it stays there."""

    lr: float
    final: float
    epochs: float

    def __post_init__(self) -> None:
        check_fields(self, lr=check_positive, final=check_positive, epochs=check_positive)

    def at(self, epoch: float) -> float:
        return float(self.lr * (self.final / self.lr) ** min(epoch / self.epochs, 1.0))


@final
@dataclass(frozen=True)
class Scaled(Schedule):
    """Another schedule times `factor`."""

    then: Schedule
    factor: float

    def __post_init__(self) -> None:
        check_fields(self, then=instance_of(Schedule), factor=check_positive)

    def at(self, epoch: float) -> float:
        return self.then.at(epoch) * self.factor


@final
@dataclass(frozen=True)
class WarmUp(Schedule):
    """Another schedule, scaled from 0 to 1 linearly over the first `epochs` epochs.  Goyal et al. (2017), 2.2."""

    then: Schedule
    epochs: float = 1

    def __post_init__(self) -> None:
        check_fields(self, then=instance_of(Schedule), epochs=check_positive)

    def at(self, epoch: float) -> float:
        return self.then.at(epoch) * min(epoch / self.epochs, 1.0)

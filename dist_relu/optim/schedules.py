"""Learning rates as functions of the time in epochs, so that they don't depend on the batch size."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import cos, pi, sqrt
from typing import Literal, final

from dist_relu.core.checks import (
    check_fields,
    check_float,
    check_int,
    check_not_negative,
    check_positive,
    instance_of,
    one_of,
)
from dist_relu.core.hints import hinting


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
class Polynomial(Schedule):
    """From `lr` to `final` over `epochs` epochs, as (1 - t)^power of the time t from 0 to 1; then it stays there.

    power 1 is a straight line. Chen et al. (2018), "DeepLab", section 4.1, who call it "poly".
    """

    lr: float
    epochs: float
    power: float = 1.0
    final: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self, lr=check_positive, epochs=check_positive, power=check_positive, final=check_not_negative)
        if self.final > self.lr:
            raise ValueError(f"Polynomial(final={self.final}): must be at least 0 and at most lr={self.lr}.")

    def at(self, epoch: float) -> float:
        left = 1 - min(epoch / self.epochs, 1.0)
        return float(self.final + (self.lr - self.final) * left**self.power)


@final
@hinting(
    {
        "max_lr": "lr=...",
        "pct_start": "rise=...",
        "div_factor": "first=... for lr / first at the start",
        "final_div_factor": "last=...",
        "anneal_strategy": "shape=...",
        "total_steps": "epochs=...",
    }
)
@dataclass(frozen=True)
class OneCycle(Schedule):
    """Up from lr / first to `lr`, in a share `rise` of `epochs` epochs, and down to lr / first / last; then it stays.

    shape: "cosine" for halves of cosines, as fastai and PyTorch have it, or "linear", as in the paper.
    Smith and Topin (2018), "Super-convergence: very fast training of neural networks using large learning rates".
    """

    lr: float
    epochs: float
    rise: float = 0.3
    first: float = 25.0
    last: float = 1e4
    shape: Literal["cosine", "linear"] = "cosine"

    def __post_init__(self) -> None:
        at_least_one = functools.partial(check_float, least=1)
        check_fields(
            self,
            lr=check_positive,
            epochs=check_positive,
            rise=functools.partial(check_float, above=0, below=1),
            first=at_least_one,
            last=at_least_one,
            shape=one_of("cosine", "linear"),
        )

    def at(self, epoch: float) -> float:
        time, start = min(epoch / self.epochs, 1.0), self.lr / self.first
        if time <= self.rise:
            return self._between(start, self.lr, time / self.rise)
        return self._between(self.lr, start / self.last, (time - self.rise) / (1 - self.rise))

    def _between(self, start: float, end: float, share: float) -> float:
        if self.shape == "cosine":
            return end + (start - end) * (1 + cos(pi * share)) / 2
        return start + (end - start) * share


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


@final
@dataclass(frozen=True)
class LargeBatch(Schedule):
    """Another schedule, which suits batches of `base_batch_size` samples, for batches of `batch_size`.

    rule: "linear" multiplies it by batch_size / base_batch_size, "sqrt" by the root of that.  warm_up: the epochs over
    which the factor comes to that, linearly from 1 on; a run of fewer epochs never has the whole factor.
    Goyal et al. (2017), "Accurate, large minibatch SGD", 2.1 and 2.2; the root after Hoffer et al. (2017), "Train
    longer, generalize better", section 4, and You et al. (2020) with LAMB.
    """

    then: Schedule
    batch_size: int
    base_batch_size: int = 64
    rule: Literal["linear", "sqrt"] = "linear"
    warm_up: float = 5

    def __post_init__(self) -> None:
        check_fields(
            self,
            then=instance_of(Schedule),
            batch_size=check_int,
            base_batch_size=check_int,
            rule=one_of("linear", "sqrt"),
            warm_up=check_not_negative,
        )

    @property
    def factor(self) -> float:
        """What the other schedule is multiplied by after the warm-up."""
        ratio = self.batch_size / self.base_batch_size
        return ratio if self.rule == "linear" else sqrt(ratio)

    def at(self, epoch: float) -> float:
        done = min(epoch / self.warm_up, 1.0) if self.warm_up else 1.0
        return self.then.at(epoch) * (1 + (self.factor - 1) * done)


def times(lr: float | Schedule, factor: float) -> Schedule:
    """A learning rate times `factor`."""
    return Scaled(lr if isinstance(lr, Schedule) else Constant(lr), factor)

"""Update rules on chunks of flat vectors, fused with the ordered sum of the gradient.  P parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from numbers import Real
from typing import final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_bool, check_fields, check_is, check_not_negative, check_positive, check_share
from dist_relu.core.guards import guard
from dist_relu.core.hints import BETAS, EPS, hinting
from dist_relu.kernels import optim as kernels
from dist_relu.optim import boundary
from dist_relu.optim.schedules import Schedule
from dist_relu.partition import PartialSums


class Optimizer(ABC):
    """An update rule.  Optimisers are plain data; the state lies beside the parameters."""

    @property
    @abstractmethod
    def num_states(self) -> int:
        """How many vectors (P,) of state the rule keeps; they start at zero."""

    @abstractmethod
    def hyper(self, step: int, epoch: float) -> Sequence[float]:
        """The numbers that the rule needs in step `step` (counted from 0), `epoch` epochs after the start."""


class ElementwiseOptimizer(Optimizer):
    """A rule in which every element of the flat vector goes its own way."""

    def __init_subclass__(cls) -> None:
        guard(cls, update=boundary.update)

    @abstractmethod
    def update(self, gradient: PartialSums, old: Sequence[Array], new: Sequence[Array], hyper: Array) -> None:
        """Sum the gradient and take the step, in one pass.

        old, new: the parameters and then the states, (n,) each, of two generations.  hyper: as an array of
        their dtype.
        """


class LayerwiseOptimizer(Optimizer):
    """A rule that scales the step of each parameter by norms of the whole parameter.

    That is for weights. Parameters of one dimension (biases, scales of a normalisation) take plain steps and don't
    decay, as in the implementations that people compare with (timm, MLPerf). (n,): a piece of a parameter.
    """

    def __init_subclass__(cls) -> None:
        guard(cls, direct=boundary.direct, take=boundary.take)

    @abstractmethod
    def direct(
        self, gradient: Array, old: Sequence[Array], new: Sequence[Array], hyper: Array, *, is_weight: bool
    ) -> None:
        """Turn the gradient, in place, into the vector whose norm counts; leave new states that need no norm.

        gradient: (n,).  old, new, hyper: as for `ElementwiseOptimizer.update`.
        """

    @abstractmethod
    def take(
        self,
        direction: Array,
        old: Sequence[Array],
        new: Sequence[Array],
        hyper: Array,
        norms: tuple[float, float] | None,
    ) -> None:
        """Take the step, and leave the other new states.

        direction: (n,), what `direct` made.  norms: of the whole parameter and of its direction; None where the step
        is a plain one.
        """


def check_rate(name: str, value: object) -> float | Schedule:
    """A check for `dist_relu.core.checks`: a learning rate, a number above 0 or a schedule."""
    if isinstance(value, Real | np.ndarray):
        return check_positive(name, value)
    return check_is(name, value, float | Schedule)


def rate_at(lr: float | Schedule, epoch: float) -> float:
    """The learning rate so many epochs after the start; a number stays the same."""
    return lr if isinstance(lr, float) else lr.at(epoch)


@final
@dataclass(frozen=True)
class SGD(ElementwiseOptimizer):
    """Stochastic gradient descent, with momentum as in PyTorch: v = momentum v + g; p = p - lr v.

    nesterov: look ahead along v, p = p - lr (g + momentum v).  weight_decay: adds weight_decay·p to g.
    """

    lr: float | Schedule = 0.1
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self, lr=check_rate, momentum=check_share, nesterov=check_bool, weight_decay=check_not_negative)
        if self.nesterov and not self.momentum:
            raise ValueError("SGD(nesterov=True) needs a momentum above 0.")

    @property
    def num_states(self) -> int:
        return 1 if self.momentum else 0

    def hyper(self, step: int, epoch: float) -> Sequence[float]:
        return rate_at(self.lr, epoch), self.weight_decay, self.momentum, float(self.nesterov)

    def update(self, gradient: PartialSums, old: Sequence[Array], new: Sequence[Array], hyper: Array) -> None:
        if self.momentum:
            kernels.momentum_sgd(*gradient, old[0], new[0], old[1], new[1], hyper)
        else:
            kernels.sgd(*gradient, old[0], new[0], hyper)


@final
@hinting(EPS)
@dataclass(frozen=True)
class RMSprop(ElementwiseOptimizer):
    """g over the root of its running mean square, as in PyTorch.  Tieleman and Hinton (2012), lecture 6e.

    momentum: of the steps, v = momentum v + g / √square; p = p - lr v.  weight_decay: adds weight_decay·p to g.
    """

    lr: float | Schedule = 0.01
    alpha: float = 0.99
    epsilon: float = 1e-8
    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_fields(
            self,
            lr=check_rate,
            alpha=check_share,
            epsilon=check_positive,
            momentum=check_share,
            weight_decay=check_not_negative,
        )

    @property
    def num_states(self) -> int:
        return 2 if self.momentum else 1

    def hyper(self, step: int, epoch: float) -> Sequence[float]:
        lr = rate_at(self.lr, epoch)
        return lr, self.weight_decay, self.alpha, 1 - self.alpha, self.epsilon, self.momentum

    def update(self, gradient: PartialSums, old: Sequence[Array], new: Sequence[Array], hyper: Array) -> None:
        if self.momentum:
            kernels.momentum_rmsprop(*gradient, old[0], new[0], old[1], new[1], old[2], new[2], hyper)
        else:
            kernels.rmsprop(*gradient, old[0], new[0], old[1], new[1], hyper)


@final
@hinting(BETAS)
@dataclass(frozen=True)
class Adam(ElementwiseOptimizer):
    """Adam; `weight_decay` adds weight_decay·p to the gradient, as in PyTorch.  Kingma and Ba (2015)."""

    lr: float | Schedule = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_adam(self)

    @property
    def num_states(self) -> int:
        return 2

    def hyper(self, step: int, epoch: float) -> Sequence[float]:
        return _adam_hyper(self, step, rate_at(self.lr, epoch), coupled=self.weight_decay, keep=1.0)

    def update(self, gradient: PartialSums, old: Sequence[Array], new: Sequence[Array], hyper: Array) -> None:
        kernels.adam(*gradient, old[0], new[0], old[1], new[1], old[2], new[2], hyper)


@final
@hinting(BETAS)
@dataclass(frozen=True)
class AdamW(ElementwiseOptimizer):
    """Adam with decoupled weight decay: p shrinks by lr·weight_decay.  Loshchilov and Hutter (2019)."""

    lr: float | Schedule = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        check_adam(self)

    @property
    def num_states(self) -> int:
        return 2

    def hyper(self, step: int, epoch: float) -> Sequence[float]:
        lr = rate_at(self.lr, epoch)
        return _adam_hyper(self, step, lr, coupled=0.0, keep=1 - lr * self.weight_decay)

    def update(self, gradient: PartialSums, old: Sequence[Array], new: Sequence[Array], hyper: Array) -> None:
        kernels.adam(*gradient, old[0], new[0], old[1], new[1], old[2], new[2], hyper)


def check_adam(rule: Optimizer) -> None:
    """Check the fields of a rule that has those of Adam."""
    check_fields(
        rule,
        lr=check_rate,
        beta1=check_share,
        beta2=check_share,
        epsilon=check_positive,
        weight_decay=check_not_negative,
    )


def _adam_hyper(rule: Adam | AdamW, step: int, lr: float, *, coupled: float, keep: float) -> Sequence[float]:
    mean_bias = 1 - rule.beta1 ** (step + 1)
    square_bias = 1 - rule.beta2 ** (step + 1)
    moments = rule.beta1, 1 - rule.beta1, rule.beta2, 1 - rule.beta2
    return lr / mean_bias, *moments, 1 / sqrt(square_bias), rule.epsilon, coupled, keep

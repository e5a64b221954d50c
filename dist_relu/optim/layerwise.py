"""Update rules whose steps are scaled by norms of whole parameters, for large batches.  n: a piece of a parameter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import final

from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_fields, check_not_negative, check_positive, check_share
from dist_relu.core.hints import BETAS, hinting
from dist_relu.kernels import optim as kernels
from dist_relu.optim.rules import LayerwiseOptimizer, check_adam, check_rate, rate_at
from dist_relu.optim.schedules import Schedule


@final
@dataclass(frozen=True)
class LARS(LayerwiseOptimizer):
    """SGD with momentum whose learning rate is, for each weight p, trust·|p| / (|g| + weight_decay·|p|) times `lr`.

    v = momentum v + rate (g + weight_decay p); p = p - v: unlike that of `SGD`, the velocity holds the rate.
    You et al. (2017), "Large batch training of convolutional networks", algorithm 1.
    """

    lr: float | Schedule = 1.0
    momentum: float = 0.9
    weight_decay: float = 0.0
    trust: float = 0.001

    def __post_init__(self) -> None:
        check_fields(self, lr=check_rate, momentum=check_share, weight_decay=check_not_negative, trust=check_positive)

    @property
    def num_states(self) -> int:
        return 1

    def hyper(self, step: int, epoch: float) -> Sequence[float]:
        return (rate_at(self.lr, epoch),)

    def direct(
        self, gradient: Array, old: Sequence[Array], new: Sequence[Array], hyper: Array, *, is_weight: bool
    ) -> None:
        pass  # the norm of the gradient itself counts

    def take(
        self,
        direction: Array,
        old: Sequence[Array],
        new: Sequence[Array],
        hyper: Array,
        norms: tuple[float, float] | None,
    ) -> None:
        rate, decay = float(hyper[0]), 0.0
        if norms is not None:
            param_norm, gradient_norm = norms
            decay = self.weight_decay
            if param_norm and gradient_norm:
                rate *= self.trust * param_norm / (gradient_norm + decay * param_norm)
        kernels.lars(direction, old[0], new[0], old[1], new[1], rate, decay, self.momentum)


@final
@hinting(BETAS)
@dataclass(frozen=True)
class LAMB(LayerwiseOptimizer):
    """AdamW whose step is, for each weight p, made |p| long before it is multiplied by `lr`.

    You et al. (2020), "Large batch optimization for deep learning", algorithm 2, with the identity as φ.
    """

    lr: float | Schedule = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-6
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_adam(self)

    @property
    def num_states(self) -> int:
        return 2

    def hyper(self, step: int, epoch: float) -> Sequence[float]:
        mean_bias = 1 - self.beta1 ** (step + 1)
        square_bias = 1 - self.beta2 ** (step + 1)
        moments = self.beta1, 1 - self.beta1, self.beta2, 1 - self.beta2
        return 1 / mean_bias, *moments, 1 / sqrt(square_bias), self.epsilon, rate_at(self.lr, epoch)

    def direct(
        self, gradient: Array, old: Sequence[Array], new: Sequence[Array], hyper: Array, *, is_weight: bool
    ) -> None:
        decay = self.weight_decay if is_weight else 0.0
        kernels.lamb_direction(gradient, old[0], old[1], new[1], old[2], new[2], decay, hyper)

    def take(
        self,
        direction: Array,
        old: Sequence[Array],
        new: Sequence[Array],
        hyper: Array,
        norms: tuple[float, float] | None,
    ) -> None:
        rate = float(hyper[-1])
        if norms is not None and all(norms):
            param_norm, direction_norm = norms
            rate *= param_norm / direction_norm
        kernels.descend(direction, old[0], new[0], rate)

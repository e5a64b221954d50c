"""How a policy learns from what it did: PPO and REINFORCE.  N samples, W numbers of an action."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.checks import (
    check_fields,
    check_float,
    check_int,
    check_not_negative,
    check_positive,
    check_probability,
    instance_of,
    optional,
)
from dist_relu.core.guards import is_ours, unchecked
from dist_relu.errors import DataError
from dist_relu.kernels import policy as kernels
from dist_relu.kernels.tape import spoil
from dist_relu.nn import Categorical, Pass, PolicyHead
from dist_relu.nn.losses.loss import CompiledLoss


@final
@dataclass(frozen=True)
class PPO:
    """Proximal policy optimisation: several passes over what each environment did in `horizon` steps.

    Schulman et al. (2017), algorithm 1.

    minibatches: into so many parts each pass is cut, a step of Adam for each.  lr: falls to 0 along half a cosine.
    gamma, lam: of rewards and advantages to come.  clip: how far the probability of an action may move, as a share.
    value_weight, entropy_weight: beside the policy's own loss.
    """

    horizon: int = 128
    epochs: int = 10
    minibatches: int = 8
    lr: float = 1e-3
    gamma: float = 0.99
    lam: float = 0.95
    clip: float = 0.2
    value_weight: float = 0.5
    entropy_weight: float = 0.0
    clip_norm: float = 0.5

    def __post_init__(self) -> None:
        _check_shared(self)
        clip = partial(check_float, above=0, below=1)
        check_fields(self, epochs=check_int, minibatches=check_int, lam=check_probability, clip=clip)

    def loss(self, head: PolicyHead) -> PolicyLoss:
        return PolicyLoss(head, self.clip, self.value_weight, self.entropy_weight)


@final
@dataclass(frozen=True)
class REINFORCE:
    """A step along the score function times what came of the action, less the state's value.  Williams (1992).

    Every environment does `horizon` steps between two steps of Adam; episodes that go on behind them count what their
    last state is worth, by the value network. It needs several times the steps of PPO.  The rest is as with `PPO`.
    """

    horizon: int = 128
    lr: float = 3e-3
    gamma: float = 0.99
    value_weight: float = 0.5
    entropy_weight: float = 0.01
    clip_norm: float = 0.5

    epochs: ClassVar[int] = 1
    minibatches: ClassVar[int] = 1
    lam: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        _check_shared(self)

    def loss(self, head: PolicyHead) -> PolicyLoss:
        return PolicyLoss(head, None, self.value_weight, self.entropy_weight)


Algorithm = PPO | REINFORCE


@final
@dataclass(frozen=True)
class PolicyLoss(CompiledLoss):
    """The policy's loss, the value's and the bonus for entropy.  Schulman et al. (2017), equation 9.

    targets: (N, W + 3): the action taken, the logarithm of its probability then, its advantage, the return.
    clip: of the probability's change (equation 7); None for -advantage · log probability, which is REINFORCE.
    """

    head: PolicyHead
    clip: float | None
    value_weight: float
    entropy_weight: float

    def __post_init__(self) -> None:
        check_fields(
            self,
            head=instance_of(PolicyHead),
            clip=optional(partial(check_float, above=0, below=1)),
            value_weight=check_not_negative,
            entropy_weight=check_not_negative,
        )

    def check(self, targets: Array, output_shape: tuple[int, ...]) -> None:
        width = self.head.action_width + 3
        if targets.shape[1:] != (width,) or output_shape != (self.head.inputs,):
            raise DataError(
                f"Expected targets of shape (N, {width}) and outputs of shape ({self.head.inputs},), "
                f"not {targets.shape} and {output_shape}."
            )
        if isinstance(self.head, Categorical):
            actions = targets[:, 0]
            if not ((actions >= 0) & (actions < self.head.actions)).all():
                raise DataError(f"Actions in the first column of targets must be from 0 to {self.head.actions - 1}.")

    def backward_into(
        self, outputs: Array, targets: Array, weights: Array, scale: float, d_outputs: Array, sums: Array, run: Pass
    ) -> None:
        assert not len(weights), "steps of a policy count alike"
        if not is_ours(type(self.head)):
            spoil()  # what it does is Python
        actions, old, advantages, returns = columns_of(self.head, targets)
        of_each = run.scratch("PolicyLoss", (4, len(outputs)), np.float64)
        log_probs, entropies, d_log_probs, d_entropies = of_each
        unchecked(self.head.log_probs)(outputs, actions, log_probs, entropies)
        if self.clip is None:
            kernels.score(log_probs, advantages, scale, d_log_probs, sums)
        else:
            kernels.clipped_surrogate(log_probs, old, advantages, self.clip, scale, d_log_probs, sums)
        kernels.entropy_bonus(entropies, self.entropy_weight, scale, d_entropies, sums)
        unchecked(self.head.log_probs_backward)(outputs, actions, d_log_probs, d_entropies, d_outputs)
        kernels.value_error(outputs, returns, self.value_weight, scale, d_outputs, sums)


def columns_of(head: PolicyHead, targets: Array) -> tuple[Array, Array, Array, Array]:
    """The parts of targets (N, W + 3): actions (N, W), old log probabilities, advantages, returns, (N,) each."""
    width = head.action_width
    return targets[:, :width], targets[:, width], targets[:, width + 1], targets[:, width + 2]


def _check_shared(algorithm: Algorithm) -> None:
    check_fields(
        algorithm,
        horizon=check_int,
        lr=check_positive,
        gamma=check_probability,
        value_weight=check_not_negative,
        entropy_weight=check_not_negative,
        clip_norm=check_positive,
    )

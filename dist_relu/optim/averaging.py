"""Replicas of a model that take steps of their own, and are averaged after every so many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from dist_relu.core.checks import check_fields, check_int, check_positive, check_share
from dist_relu.optim.rules import SGD


@final
@dataclass(frozen=True)
class LocalSGD:
    """Replicas take `steps` steps each, from their own shards of every batch alone; then all go on from their mean.

    Any rule may take the steps; its state, such as a momentum, stays with the replica. With one replica it is usual
    training, to the bit.  Stich (2018), algorithm 1; Lin et al. (2020), algorithm 1, with local momentum.
    """

    replicas: int
    steps: int

    def __post_init__(self) -> None:
        check_fields(self, replicas=check_int, steps=check_int)

    @property
    def outer(self) -> SGD | None:
        """What takes the step from the mean before to the one behind; None: nothing does, it is the mean."""
        return None


@final
@dataclass(frozen=True)
class DiLoCo:
    """Replicas take `steps` steps each, and the way to their mean is the gradient of an outer rule, Nesterov's.

    The outer parameters p, from which all replicas go on, follow g = p - mean: v = outer_momentum v + g;
    p = p - outer_lr (g + outer_momentum v). Running means of layers are averaged.

    Douillard et al. (2023), algorithm 1.
    """

    replicas: int
    steps: int
    outer_lr: float = 0.7
    outer_momentum: float = 0.9

    def __post_init__(self) -> None:
        check_fields(self, replicas=check_int, steps=check_int, outer_lr=check_positive, outer_momentum=check_share)

    @property
    def outer(self) -> SGD | None:
        """What takes the step from the outer parameters before to those behind."""
        return SGD(self.outer_lr, momentum=self.outer_momentum, nesterov=self.outer_momentum > 0)


Averaging = LocalSGD | DiLoCo

"""The learning rate of any rule: what it is, and the same rule at another one."""

from __future__ import annotations

from dataclasses import is_dataclass, replace
from typing import cast

from dist_relu.optim.groups import Groups
from dist_relu.optim.rules import Optimizer
from dist_relu.optim.schedules import Schedule, times


def with_learning_rate(optimizer: Optimizer, lr: float | Schedule) -> Optimizer:
    """The same rule at another learning rate.  Raises TypeError for one that has none."""
    if isinstance(optimizer, Groups):
        return replace(optimizer, rule=with_learning_rate(optimizer.rule, lr))
    if not is_dataclass(optimizer) or not hasattr(optimizer, "lr"):
        raise TypeError(f"{type(optimizer).__name__} is no dataclass with a learning rate `lr` that could be changed.")
    return cast(Optimizer, replace(optimizer, lr=lr))


def scaled(optimizer: Optimizer, scale: float) -> Optimizer:
    """The same rule at so many times its learning rate.  Raises TypeError for one that has none."""
    changed = with_learning_rate(optimizer, times(_lr_of(optimizer) or 1.0, scale))
    return optimizer if scale == 1 else changed


def learning_rate(optimizer: Optimizer, epoch: float) -> float | None:
    """The learning rate of an optimizer so many epochs after the start; None for one that has no `lr`."""
    lr = _lr_of(optimizer)
    return lr.at(epoch) if isinstance(lr, Schedule) else lr


def _lr_of(optimizer: Optimizer) -> float | Schedule | None:
    lr: float | Schedule | None = getattr(optimizer.rule if isinstance(optimizer, Groups) else optimizer, "lr", None)
    return lr

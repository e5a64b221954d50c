"""Groups of parameters that a rule treats in ways of their own: other learning rates, no weight decay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass, replace
from itertools import pairwise
from typing import Any, cast, final

from dist_relu.core.checks import (
    check_fields,
    check_not_negative,
    check_positive,
    check_sequence,
    instance_of,
    optional,
)
from dist_relu.optim.rules import Optimizer
from dist_relu.optim.schedules import times

BIASES, NORMS = "biases", "norms"
"""Words for parameters that are named "bias", and for all of normalisations."""


@final
@dataclass(frozen=True)
class Group:
    """The parameters that any of `names` suits: their names in `model.names`, patterns of them, or a word for many.

    names: such as "0.weight", "0.*", "*.bias"; "biases" for all that are named so, "norms" for those of BatchNorm and
    LayerNorm. One of them, or several.
    lr_scale: a factor of the learning rate.  weight_decay: in place of that of the rule.
    """

    names: str | Sequence[str]
    lr_scale: float = 1.0
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.names, str):
            object.__setattr__(self, "names", (self.names,))
        check_fields(
            self,
            names=lambda name, value: check_sequence(name, value, instance_of(str), "names"),
            lr_scale=check_positive,
            weight_decay=optional(check_not_negative),
        )
        if not self.names:
            raise ValueError("Group(names=()): must name some parameters.")

    def of(self, rule: Optimizer) -> Optimizer:
        """The rule, for this group.  Raises TypeError for one that has nothing of the kind."""
        changes: dict[str, Any] = {}
        if self.lr_scale != 1:
            changes["lr"] = times(_of(rule, "lr"), self.lr_scale)
        if self.weight_decay is not None:
            _of(rule, "weight_decay")
            changes["weight_decay"] = self.weight_decay
        return cast(Optimizer, replace(cast(Any, rule), **changes)) if changes else rule


@final
@dataclass(frozen=True)
class Groups(Optimizer):
    """A rule with groups of parameters; each is of the first group that it suits, and all others follow the rule alone.

        optim.Groups(optim.AdamW(1e-3), [optim.Group(["biases", "norms"], weight_decay=0), optim.Group("0.*", 0.1)])

    Raises ValueError, when training begins, where a group suits no parameter of the model.
    """

    rule: Optimizer
    groups: Sequence[Group]

    def __post_init__(self) -> None:
        a_group = instance_of(Group)
        check_fields(
            self,
            rule=instance_of(Optimizer),
            groups=lambda name, value: check_sequence(name, value, a_group, "groups"),
        )
        if isinstance(self.rule, Groups):
            raise TypeError("Groups(rule=...): a rule with groups has them already; put all into one.")
        self.rules()  # raises for a rule that has no such numbers

    @property
    def num_states(self) -> int:
        return self.rule.num_states

    def hyper(self, step: int, epoch: float) -> Sequence[float]:
        """The numbers of all rules, one after another; see `parts`."""
        return [number for rule in self.rules() for number in rule.hyper(step, epoch)]

    def rules(self) -> list[Optimizer]:
        """The rule of each group, and last that of all other parameters."""
        return [*(group.of(self.rule) for group in self.groups), self.rule]

    def parts(self) -> list[slice]:
        """Where the numbers of each rule stand in those of all."""
        ends = [0]
        for rule in self.rules():
            ends.append(ends[-1] + len(rule.hyper(0, 0.0)))
        return [slice(*part) for part in pairwise(ends)]


def no_decay(rule: Optimizer, names: str | Sequence[str] = (BIASES, NORMS)) -> Groups:
    """The rule without weight decay of some parameters, by default of biases and all of normalisations."""
    return Groups(rule, [Group(names, weight_decay=0.0)])


def _of(rule: Optimizer, name: str) -> Any:
    if not is_dataclass(rule) or not hasattr(rule, name):
        raise TypeError(f"{type(rule).__name__} is no dataclass with a field `{name}` that a group could change.")
    return getattr(rule, name)

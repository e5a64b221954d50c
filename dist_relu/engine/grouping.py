"""Which parameters of a model are of which group of an optimiser."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from dist_relu.nn import BatchNorm, LayerNorm, Sequential
from dist_relu.nn.description import parts
from dist_relu.optim import Groups, Optimizer
from dist_relu.optim.groups import BIASES, NORMS


def group_numbers(optimizer: Optimizer, model: Sequential) -> list[int]:
    """For each parameter of a built model, the number of its rule in `Groups.rules`; none without groups."""
    if not isinstance(optimizer, Groups):
        return []
    norms = {place for place, part in parts(model.layers) if isinstance(part, BatchNorm | LayerNorm)}

    def suits(name: str, wanted: Sequence[str]) -> bool:
        layer, _, own = name.rpartition(".")
        words = [BIASES] * (own == "bias") + [NORMS] * (layer in norms)
        return any(one in words or fnmatchcase(name, one) for one in wanted)

    rest = len(optimizer.groups)
    return [
        next((number for number, group in enumerate(optimizer.groups) if suits(name, group.names)), rest)
        for name in model.names
    ]


def check_groups(optimizer: Optimizer, model: Sequential) -> None:
    """Raise ValueError where a group has none of the parameters that are trained.  model: built."""
    if not isinstance(optimizer, Groups):
        return
    numbers = group_numbers(optimizer, model)
    trained = [
        (name, number)
        for name, param, number in zip(model.names, model.params, numbers, strict=True)
        if param.momentum is None
    ]
    for number, group in enumerate(optimizer.groups):
        if number not in (found for _, found in trained):
            raise ValueError(
                f"{group!r} suits no parameter that no group before it suits; the model has "
                f"{', '.join(name for name, _ in trained)}."
            )

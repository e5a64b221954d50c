"""What a compression of gradients is.

The shards of a batch are in G groups, fixed nodes of the summation tree, whatever the workers are. The sum of each
group is compressed, as a machine would before it sends it, and what the others would make of it is added along the
tree. So a run with a compression is the same on any number of workers.

There are two kinds. Where numbers are only rounded (`Rounded`), the reduction sees to it on the way between nodes, and
these really send less (`dist_relu.reduction.plan`). All others remember what they leave out (`ErrorFeedback`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import prod

from dist_relu.core.checks import check_int
from dist_relu.nn import Param, Sequential


class Compression(ABC):
    """A compression of gradients is plain data."""

    @abstractmethod
    def num_groups(self, shards: int) -> int | None:
        """Tell how many groups of shards there are; None: the sum over all of them is compressed."""

    @abstractmethod
    def bytes_sent(self, model: Sequential) -> int:
        """Tell how many bytes the gradient of a group takes in a step, when it is sent once.  model: built."""


def check_groups(name: str, value: object) -> int | None:
    """A check for `dist_relu.core.checks`: how many groups, or None for as many as there are shards."""
    return None if value is None else check_int(name, value)


def is_trained(param: Param) -> bool:
    """Tell whether a parameter has a gradient; running means have none, and are sent as they are."""
    return param.momentum is None


def total_size(params: Sequence[Param]) -> int:
    """Count the numbers of some parameters."""
    return sum(prod(param.shape) for param in params)

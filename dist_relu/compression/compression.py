"""What a compression of gradients is, and what a worker does for one.

The shards of a batch are in G groups, fixed nodes of the summation tree, whatever the workers are. The sum of each
group is compressed, as a machine would before it sends it, and what the others would make of it is added along the
tree. All that a compression remembers is of groups, and lies behind the optimiser's states: so a run with it is the
same on any number of workers, survives the loss of any, and goes on from a checkpoint.

Where numbers are only rounded, nodes really send less, and the reduction sees to it (`dist_relu.reduction.plan`).

P parameters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import prod

from dist_relu.comm.barrier import Barrier
from dist_relu.comm.halves import Rounding
from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_int
from dist_relu.nn import Param

FLOAT_BYTES = 4
"""Of a number that is sent as it is: a float32."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """This is what a worker has of a gradient that is to be compressed.

    params: of the model.  seed: of the run.
    sums: (rows, P), shared by the node: the sum of each group in its row; further rows are scratch memory.
    states: (2, states, P), of both generations, shared by the node.
    chunks: what of each row is the worker's own, and whether it is trained.
    barrier: of the workers of the node.  rank: among them.  workers: how many they are.
    """

    params: Sequence[Param]
    seed: int
    sums: Array
    states: Array
    chunks: Sequence[tuple[slice, bool]]
    barrier: Barrier
    rank: int
    workers: int


class Compressor(ABC):
    """A compressor is one worker's part of a compression.

    Running means are none of its business, and go through as they are.
    """

    @abstractmethod
    def compress(self, generation: int) -> None:
        """Make of the groups' sums, of which this worker's chunks are there, what comes of them; collective.

        States are read from `generation` and written to the other one. What is left in this worker's chunks is added
        along the tree behind that. All are kernels, so that steps can be recorded.
        """

    @abstractmethod
    def receive(self, total: Array) -> None:
        """Make of a trained chunk of the total over all groups what would come back of it."""


class Compression(ABC):
    """A compression of gradients is plain data; its state lies beside the parameters."""

    @abstractmethod
    def num_groups(self, shards: int) -> int | None:
        """Tell how many groups of shards there are; None: the sum over all of them is compressed."""

    @abstractmethod
    def rounding(self) -> Rounding | None:
        """Tell to what the sum of each group is rounded, and all sums of them, which is all that happens then.

        So they are added on the way between nodes, and nothing else is asked of the compression. None: they are not.
        """

    @abstractmethod
    def num_rows(self, shards: int) -> int:
        """Tell how many rows (P,) a compressor works in, one for each group and scratch memory."""

    @abstractmethod
    def state_names(self, shards: int) -> Sequence[str]:
        """Name the vectors (P,) that it remembers from step to step, which start at zero."""

    @abstractmethod
    def bytes_sent(self, params: Sequence[Param]) -> int:
        """Tell how many bytes the gradient of a group takes in a step, when it is sent once."""

    @abstractmethod
    def compressor(self, part: Part) -> Compressor:
        """Make a worker's part; not of one that rounds."""


def check_groups(name: str, value: object) -> int | None:
    """A check for `dist_relu.core.checks`: how many groups, or None for as many as there are shards."""
    return None if value is None else check_int(name, value)


def places_of(params: Sequence[Param]) -> list[slice]:
    """Where each parameter lies in the flat vector."""
    ends = [0, *accumulate(prod(param.shape) for param in params)]
    return [slice(first, stop) for first, stop in pairwise(ends)]


def bytes_as_they_are(params: Sequence[Param]) -> int:
    """Tell how many bytes these take as they are."""
    return FLOAT_BYTES * sum(prod(param.shape) for param in params)

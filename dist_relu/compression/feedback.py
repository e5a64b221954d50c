"""What a compression is that remembers what it leaves out, and what a worker does for one.

All that it remembers is of groups, and lies behind the optimiser's states: so it survives the loss of any worker, and a
run goes on from a checkpoint.

P parameters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import prod

from dist_relu.comm.barrier import Barrier
from dist_relu.compression.compression import Compression
from dist_relu.core.arrays import Array
from dist_relu.nn import Param


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


class ErrorFeedback(Compression):
    """A compression that needs whole sums, and adds what it leaves out of one to the next."""

    @abstractmethod
    def num_rows(self, shards: int) -> int:
        """Tell how many rows (P,) a compressor works in, one for each group and scratch memory."""

    @abstractmethod
    def state_names(self, shards: int) -> Sequence[str]:
        """Name the vectors (P,) that it remembers from step to step, which start at zero."""

    @abstractmethod
    def compressor(self, part: Part) -> Compressor:
        """Make a worker's part."""


def places_of(params: Sequence[Param]) -> list[slice]:
    """Where each parameter lies in the flat vector."""
    ends = [0, *accumulate(prod(param.shape) for param in params)]
    return [slice(first, stop) for first, stop in pairwise(ends)]

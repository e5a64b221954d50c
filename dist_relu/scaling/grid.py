"""What is measured: trainings that differ in their workers, and what they are held against."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

from dist_relu.core.checks import check_int
from dist_relu.errors import PartitionError
from dist_relu.partition import check_fit

Regime = Literal["strong", "weak"]
Series = tuple[Regime, str, str, int, int]


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point of an experiment is a training of a model on so many workers.

    regime: "strong", where the batch is the same on any number of workers, or "weak", where it grows with them.
    model: its name.  batch_size: over all workers together.  nodes: so many, with as many workers each; None: as the
    workers come to be placed.
    """

    regime: Regime
    model: str
    backend: str
    workers: int
    batch_size: int
    shards: int
    nodes: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Return its workers, and its nodes, 0 for as they come: what differs in a series, the smallest first."""
        return self.workers, self.nodes or 0

    @property
    def series(self) -> Series:
        """What it has in common with those that it is compared with."""
        if self.regime == "strong":
            return self.regime, self.model, self.backend, self.batch_size, self.shards
        return self.regime, self.model, self.backend, self.batch_size // self.workers, self.shards // self.workers


def check_batch(batch_size: int, num_samples: int) -> None:
    """Raise `PartitionError` for a batch that the data have not enough samples for: its steps would be shorter."""
    if batch_size > num_samples:
        raise PartitionError(
            f"A batch of {batch_size:,} has more samples than the data, {num_samples:,}. "
            f"Pass batch_size <= {num_samples}, or more data."
        )


def check_models(points: Sequence[Point], models: Collection[str]) -> None:
    """Raise ValueError for a point of a model that there is none of."""
    if missing := sorted({point.model for point in points} - set(models)):
        there = ", ".join(models)
        raise ValueError(f"Points name models that are not in models: {', '.join(missing)}. There are: {there}.")


def strong(
    models: Sequence[str],
    workers: Sequence[int],
    *,
    backends: Sequence[str] = ("local",),
    batch_sizes: Sequence[int] = (64,),
    shards: Sequence[int] | None = None,
    nodes: Sequence[int] | None = None,
) -> list[Point]:
    """List the points where the same batch is shared by more and more workers.

    shards: by default as many as the most workers, so that all compute the same bits.
    nodes: each number of workers is on each of these that can have as many of them each; None: as they come.
    Raises `PartitionError` where there are fewer shards than workers, or fewer samples than shards, and for nodes that
    can have as many of no number of workers.
    """
    points = [
        Point(
            regime="strong",
            model=model,
            backend=backend,
            workers=number,
            batch_size=batch_size,
            shards=cut,
            nodes=on_nodes,
        )
        for model in models
        for backend in backends
        for batch_size in batch_sizes
        for cut in shards or [max(workers)]
        for number, on_nodes in _sizes(workers, nodes)
    ]
    for point in points:
        check_fit(point.batch_size, point.batch_size, point.shards, point.workers)
    return points


def weak(
    models: Sequence[str],
    workers: Sequence[int],
    *,
    backends: Sequence[str] = ("local",),
    batch_sizes: Sequence[int] = (64,),
    nodes: Sequence[int] | None = None,
) -> list[Point]:
    """List the points where every worker has a batch of its own, one shard.

    batch_sizes: of one worker.  nodes: see `strong`, as for what it raises.
    """
    return [
        Point(
            regime="weak",
            model=model,
            backend=backend,
            workers=number,
            batch_size=batch_size * number,
            shards=number,
            nodes=on_nodes,
        )
        for model in models
        for backend in backends
        for batch_size in batch_sizes
        for number, on_nodes in _sizes(workers, nodes)
    ]


def _sizes(workers: Sequence[int], nodes: Sequence[int] | None) -> list[tuple[int, int | None]]:
    """List numbers of workers, the fewest first, with each number of nodes that can have as many of them each."""
    numbers = sorted(set(workers))
    if not nodes:
        return [(number, None) for number in numbers]
    for on_nodes in nodes:
        check_int("nodes", on_nodes, least=1)
        if all(number % on_nodes for number in numbers):
            raise PartitionError(
                f"nodes={on_nodes} divides none of workers={','.join(map(str, numbers))}. Pass a multiple of "
                f"{on_nodes} among the workers, or leave it out of the nodes."
            )
    return [(number, on_nodes) for number in numbers for on_nodes in sorted(set(nodes)) if number % on_nodes == 0]


def own_share(point: Point, workers: int) -> tuple[int, int]:
    """Count the rows and the shards of the worker that has most, on so many workers of a point's series."""
    if point.regime == "weak":
        return point.batch_size // point.workers, point.shards // point.workers
    shards = max(point.shards, workers)  # each has one at least
    of_worker = ceil(shards / workers)
    return min(of_worker * ceil(point.batch_size / shards), point.batch_size), of_worker

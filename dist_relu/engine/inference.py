"""Inference works on the rows of an array: evaluation, outputs, ReLU itself, and whatever else is asked about samples.

Rows are cut into blocks of a fixed size that workers share out, so that a row's result does not depend on how
many workers there are. The coordinator places samples and models on the nodes (`Placement`), every worker attaches
them (`ModelInput`, `ForwardPasses`) and does its own blocks (`my_blocks`), and what comes out is gathered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import numpy.typing as npt

from dist_relu.comm.shared_memory import Handles
from dist_relu.comm.whereabouts import EVALUATION
from dist_relu.core.arrays import Array
from dist_relu.data.rows import Rows
from dist_relu.engine.kept_models import ForwardPasses
from dist_relu.kernels.activations import relu as pair
from dist_relu.nn import Loss, PlainPass, Sequential
from dist_relu.nn.losses.loss import UNWEIGHTED
from dist_relu.partition import bounds
from dist_relu.runtime.placed import PlacedDataset
from dist_relu.runtime.placed_samples import PlacedSamples, Samples, SamplesHandle
from dist_relu.runtime.replicated import ReplicatedArray, ReplicatedArrays
from dist_relu.runtime.world import World

BLOCK_ROWS = 256

Run = Callable[[Callable[[World, Any], Any], Any], object]
"""(function, request): runs function(world, request) on all workers, see `Coordinator.run`."""


@final
@dataclass(frozen=True, kw_only=True)
class ModelInput:
    """This is what a worker computes with: a model, its parameters (P,), and samples x (N, ...)."""

    model: Sequential
    input_shape: tuple[int, ...]
    values: Handles
    x: SamplesHandle

    def attach(self, world: World) -> tuple[Sequential, Samples]:
        """Return the model, ready to compute, and the samples, of which this node has those that its workers need."""
        self.model.build(self.input_shape)
        self.model.bind(world.node.attach(self.values))
        return self.model, self.x.attach(world.node)


@final
@dataclass(frozen=True, kw_only=True)
class Placement:
    """A placement brings samples and models to the nodes for a call, and must live as long as that.

    replicas: of this call.  block_sizes: (blocks,), the number of samples of each block.
    rows, blocks, ranks: of samples, of results by block and of results by rank, those of each node's workers.
    """

    replicas: ReplicatedArrays
    block_sizes: Array
    rows: dict[int, range]
    blocks: dict[int, range]
    ranks: dict[int, range]
    _kept: list[ReplicatedArray] = field(default_factory=list, init=False)

    @classmethod
    def of(cls, replicas: ReplicatedArrays, num_samples: int) -> Placement:
        """Cut so many samples into blocks, and share these out."""
        workers = replicas.nodes[-1].stop
        sizes = np.full(num_blocks(num_samples), BLOCK_ROWS)
        sizes[-1:] -= len(sizes) * BLOCK_ROWS - num_samples
        blocks = [range(*part) for part in bounds(len(sizes), workers)]
        rows = [range(*(min(block * BLOCK_ROWS, num_samples) for block in (part.start, part.stop))) for part in blocks]
        return cls(
            replicas=replicas,
            block_sizes=sizes,
            rows=replicas.rows_by_node(rows),
            blocks=replicas.rows_by_node(blocks),
            ranks=replicas.rows_by_node([range(rank, rank + 1) for rank in range(workers)]),
        )

    @property
    def num_blocks(self) -> int:
        return len(self.block_sizes)

    def samples(self, x: Array | Rows, dtype: np.dtype[Any]) -> PlacedSamples:
        """Place samples: every node gets the rows that its workers need."""
        placed = PlacedSamples.of(x if isinstance(x, Rows) else Rows(x), dtype, self.replicas)
        placed.broadcast(self.rows)
        return placed

    def targets(self, y: Array, dtype: npt.DTypeLike) -> ReplicatedArray:
        """Place targets in the same way."""
        placed = self.replicas.copy_of(y, dtype)
        placed.broadcast(self.rows)
        return placed

    def weights(self, weights: Array | None) -> ReplicatedArray:
        """Place weights of samples, divided by their mean, in the same way; `UNWEIGHTED` where there are none."""
        placed = self.replicas.copy_of(UNWEIGHTED if weights is None else weights / weights.mean())
        if weights is not None:
            placed.broadcast(self.rows)
        return placed

    def model(self, model: Sequential, x: PlacedSamples) -> ModelInput:
        """Place the model, for these samples."""
        values = self.replicas.copy_of(model.values)
        values.broadcast()
        self._kept.append(values)
        return ModelInput(model=model.blueprint(), input_shape=model.input_shape, values=values.handles, x=x.handle)

    def passes(self, model: Sequential, blueprint: bytes, loss: Loss | None) -> ForwardPasses:
        """Place the model for passes forward.  blueprint: the model's, see `Blueprints`."""
        values = self.replicas.copy_of(model.values)
        values.broadcast()
        self._kept.append(values)
        return ForwardPasses(blueprint=blueprint, input_shape=model.input_shape, values=values.handles, loss=loss)


def evaluate(
    run: Run,
    replicas: ReplicatedArrays,
    model: Sequential,
    blueprint: bytes,
    data: PlacedDataset,
    loss: Loss,
    weights: Array | None,
    *,
    keeps_outputs: bool,
) -> tuple[float, float, Array | None]:
    """Sum the loss and the number of correct predictions over all samples, or by their weights; collective.

    blueprint: the model's, see `Blueprints`.  keeps_outputs: also return the outputs, (N, *output_shape).
    """
    placement = Placement.of(replicas, len(data.x))
    sums = replicas.zeros((placement.num_blocks, 2 if weights is None else 3), np.float64)
    placed_weights = replicas.copy_of(UNWEIGHTED if weights is None else weights)
    if weights is not None:
        placed_weights.broadcast(placement.rows)
    outputs = replicas.zeros((len(data.x), *model.output_shape), model.dtype) if keeps_outputs else None
    data.x.broadcast(placement.rows)
    data.y.broadcast(placement.rows)
    request = _EvaluateRequest(
        passes=placement.passes(model, blueprint, loss),
        x=data.x.handle,
        y=data.y.handles,
        weights=placed_weights.handles,
        sums=sums.handles,
        outputs=outputs.handles if outputs else None,
    )
    run(_evaluate, request)
    totals = np.add.reduce(sums.gather(placement.blocks), axis=0)
    return float(totals[0]), float(totals[-1]), outputs.gather(placement.rows) if outputs else None


def outputs(run: Run, replicas: ReplicatedArrays, model: Sequential, blueprint: bytes, x: Array | Rows) -> Array:
    """Compute the outputs (N, ...) for samples x (N, ...); collective.  blueprint: the model's, see `Blueprints`."""
    placement = Placement.of(replicas, len(x))
    result = replicas.zeros((len(x), *model.output_shape), model.dtype)
    samples = placement.samples(x, model.dtype)
    passes = placement.passes(model, blueprint, None)
    run(_outputs, _OutputsRequest(passes=passes, x=samples.handle, outputs=result.handles))
    return result.gather(placement.rows)


def activations(run: Run, replicas: ReplicatedArrays, model: Sequential, x: Array | Rows) -> list[Array]:
    """Compute the outputs (N, ...) of every layer for samples x (N, ...); collective."""
    placement = Placement.of(replicas, len(x))
    targets = [replicas.zeros((len(x), *shape), model.dtype) for shape in model.layer_shapes]
    samples = placement.samples(x, model.dtype)
    handles = [target.handles for target in targets]
    run(_activations, _ActivationsRequest(input=placement.model(model, samples), outputs=handles))
    return [target.gather(placement.rows) for target in targets]


def relu(run: Run, replicas: ReplicatedArrays, x: Array, dy: Array | None, partitions: int) -> Array:
    """Compute max(x, 0), or with `dy` the gradient of x from that of the output, of the same shape.  Collective.

    partitions: into how many parts the elements are cut for the workers.
    """
    starts = [*(start for start, _ in bounds(x.size, partitions)), x.size]
    elements = replicas.rows_by_node(
        [range(starts[first], starts[stop]) for first, stop in bounds(partitions, replicas.nodes[-1].stop)]
    )
    result = replicas.zeros((x.size,), (x if dy is None else dy).dtype)
    sources = [replicas.copy_of(source.reshape(-1)) for source in (x, dy) if source is not None]
    for source in sources:
        source.broadcast(elements)
    request = _ReluRequest(
        x=sources[0].handles,
        dy=None if dy is None else sources[1].handles,
        result=result.handles,
        partitions=partitions,
    )
    run(_relu, request)
    return result.gather(elements).reshape(x.shape)


def num_blocks(num_rows: int) -> int:
    return -(-num_rows // BLOCK_ROWS)


def my_blocks(world: World, num_rows: int) -> Iterator[tuple[int, slice]]:
    """Go through this worker's blocks: their numbers and rows.  Ends early when the call is given up."""
    for block in range(*bounds(num_blocks(num_rows), world.size)[world.rank]):
        world.barrier.check()
        yield block, slice(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, num_rows))


@dataclass(frozen=True, kw_only=True)
class _EvaluateRequest:
    """sums: (blocks, 2) float64, gets the summed loss and the number of correct predictions of each block.

    weights: of samples, or `UNWEIGHTED`; with them, sums are (blocks, 3) and get the weight of these predictions too.
    outputs: (N, *output_shape) gets the outputs, where they are wanted.
    """

    passes: ForwardPasses
    x: SamplesHandle
    y: Handles
    weights: Handles
    sums: Handles
    outputs: Handles | None


def _evaluate(world: World, request: _EvaluateRequest) -> None:
    """Sum the loss and the number of correct predictions over the samples of every block."""
    world.node.whereabouts.enter(EVALUATION)
    x = request.x.attach(world.node)
    y, sums, weights = (world.node.attach(array) for array in (request.y, request.sums, request.weights))
    outputs = [world.node.attach(request.outputs)] if request.outputs else []
    with request.passes.attach(world) as forward:
        for block, rows in my_blocks(world, len(x)):
            forward(x[rows], y[rows], sums[block], weights[rows], *(array[rows] for array in outputs))


@dataclass(frozen=True, kw_only=True)
class _OutputsRequest:
    """outputs: (N, ...)."""

    passes: ForwardPasses
    x: SamplesHandle
    outputs: Handles


def _outputs(world: World, request: _OutputsRequest) -> None:
    """Write the outputs of the model."""
    world.node.whereabouts.enter(EVALUATION)
    x, outputs = request.x.attach(world.node), world.node.attach(request.outputs)
    with request.passes.attach(world) as forward:
        for _, rows in my_blocks(world, len(x)):
            forward(x[rows], outputs[rows])


@dataclass(frozen=True, kw_only=True)
class _ActivationsRequest:
    """outputs: (N, ...) for each layer."""

    input: ModelInput
    outputs: Sequence[Handles]


def _activations(world: World, request: _ActivationsRequest) -> None:
    """Write the outputs of every layer."""
    world.node.whereabouts.enter(EVALUATION)
    model, x = request.input.attach(world)
    targets = [world.node.attach(handles) for handles in request.outputs]
    run = PlainPass(training=False)
    for _, rows in my_blocks(world, len(x)):
        for target, result in zip(targets, model.activations(x[rows], run), strict=True):
            target[rows] = result


@dataclass(frozen=True, kw_only=True)
class _ReluRequest:
    """x and result: (n,), any array flattened; dy: the gradient of ReLU's output, or None for the forward direction."""

    x: Handles
    dy: Handles | None
    result: Handles
    partitions: int


def _relu(world: World, request: _ReluRequest) -> None:
    """Compute ReLU or its backward on this worker's partitions."""
    x, result = world.node.attach(request.x), world.node.attach(request.result)
    dy = None if request.dy is None else world.node.attach(request.dy)
    first, stop = bounds(request.partitions, world.size)[world.rank]
    for start, end in bounds(len(x), request.partitions)[first:stop]:
        if dy is None:
            pair.forward(x[start:end], result[start:end])
        else:
            result[start:end] = dy[start:end]
            pair.backward(result[start:end], x[start:end])

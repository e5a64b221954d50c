"""Models and samples where the workers are, for a call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from dist_relu.core.arrays import Array
from dist_relu.engine.arguments import check_has_parameters, check_samples, numbers
from dist_relu.engine.inference import BLOCK_ROWS, ModelInput, num_blocks, rows_of_blocks
from dist_relu.errors import DataError
from dist_relu.nn import Sequential
from dist_relu.partition import bounds
from dist_relu.runtime.replicated import ReplicatedArray, ReplicatedArrays


@final
@dataclass(frozen=True)
class Placing:
    """Where the arrays of a call are; lives as long as the call.

    block_sizes: (blocks,), the number of samples of each block.
    """

    replicas: ReplicatedArrays
    block_sizes: Array
    rows: dict[int, range]
    blocks: dict[int, range]
    ranks: dict[int, range]

    @classmethod
    def of(cls, workers: int, replicas: ReplicatedArrays, num_samples: int) -> Placing:
        """replicas: of this call.  Rows, blocks and rows of results by rank are those of each node's workers."""
        blocks = num_blocks(num_samples)
        sizes = np.full(blocks, BLOCK_ROWS)
        sizes[-1] -= blocks * BLOCK_ROWS - num_samples
        return cls(
            replicas,
            sizes,
            replicas.rows_by_node(rows_of_blocks(num_samples, workers)),
            replicas.rows_by_node([range(*part) for part in bounds(blocks, workers)]),
            replicas.rows_by_node([range(rank, rank + 1) for rank in range(workers)]),
        )

    def samples(self, x: Array, dtype: npt.DTypeLike) -> ReplicatedArray:
        """`x` or `y`, every node with the rows that its workers need."""
        placed = self.replicas.copy_of(x, dtype)
        placed.broadcast(self.rows)
        return placed

    def model(self, model: Sequential, x: ReplicatedArray) -> tuple[ModelInput, ReplicatedArray]:
        """The model on these samples, and the parameters, which must be kept as long as it is used."""
        values = self.replicas.copy_of(model.values)
        values.broadcast()
        return ModelInput(model.blueprint(), model.input_shape, values.handles, x.handles), values


def checked_samples(model: Sequential, x: npt.ArrayLike) -> Array:
    """`x` as an array (N, *input_shape), N >= 1, for a model that has parameters.  Raises ValueError or DataError."""
    check_has_parameters(model)
    x = numbers("x", x)
    model.build(x.shape[1:])
    if not len(x):
        raise DataError("x has no samples; there is nothing to measure.")
    check_samples(model, x)
    return x


def layer_names(model: Sequential) -> list[str]:
    """The layers as the user wrote them: "0 Dense", "1 ReLU", ..."""
    return [f"{number} {type(layer).__name__}" for number, layer in enumerate(model.layers)]

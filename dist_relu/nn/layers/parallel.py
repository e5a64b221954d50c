"""Layers beside one another.  N batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import final

from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_fields, check_sequence
from dist_relu.kernels.copies import put_columns, take_columns
from dist_relu.kernels.ordered_sum import add
from dist_relu.nn.boundary import Inside, inside
from dist_relu.nn.layer import PLAIN, Layer, Param, Pass, Shape, check_layers


@final
@dataclass(eq=False)
class Parallel(Layer):
    """Branches that take the same input, each one layer after another; their outputs stand side by side.

    x: (N, ...).  y: (N, K₀ + K₁ + ...), where branch i gives (N, Kᵢ).
    """

    branches: Sequence[Sequence[Layer]]
    _running: list[list[Inside]] = field(init=False, repr=False)
    _columns: list[slice] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_fields(self, branches=lambda name, value: check_sequence(name, value, check_layers, "branches"))
        if not self.branches:
            raise ValueError("Parallel(branches=()): expected at least one branch.")

    def build(self, input_shape: Shape) -> Shape:
        widths = []
        for number, branch in enumerate(self.branches):
            shape = input_shape
            for position, layer in enumerate(branch):
                shape = layer.build(shape)
                for param in layer.params():
                    param.name = f"{number}.{position}.{param.name}"
            if len(shape) != 1:
                raise ValueError(f"Parallel: branch {number} gives shape {shape}; expected one dimension, as of Dense.")
            widths.append(shape[0])
        self._columns = [slice(*ends) for ends in pairwise(accumulate(widths, initial=0))]
        self.run_as(self.branches)
        return (sum(widths),)

    def run_as(self, branches: Sequence[Sequence[Layer]]) -> None:
        """Compute with other layers that do the same."""
        self._running = [list(map(inside, branch)) for branch in branches]

    def params(self) -> Sequence[Param]:
        return [param for branch in self.branches for layer in branch for param in layer.params()]

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        outputs = []
        for branch in self._running:
            y = x
            for layer in branch:
                y = layer.forward(y, run)
            outputs.append(y)
        joined = run.empty((len(x), self._columns[-1].stop), x.dtype)
        for columns, y in zip(self._columns, outputs, strict=True):
            put_columns(y, columns.start, joined)
        return joined

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        total: Array | None = None
        for branch, columns in zip(self._running, self._columns, strict=True):
            d = run.empty((len(dy), columns.stop - columns.start), dy.dtype)
            take_columns(dy, columns.start, d)
            for position in range(len(branch) - 1, -1, -1):
                d = branch[position].backward(d, run, wants_dx=wants_dx or position > 0)
            if wants_dx and total is not None:
                add(total.reshape(-1), d.reshape(-1))
            elif wants_dx:
                total = d
        return dy if total is None else total

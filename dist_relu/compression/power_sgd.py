"""Gradients are sent as matrices of low rank; what these leave out is added to the next one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import final

import numpy as np

from dist_relu.compression.compression import is_trained, total_size
from dist_relu.compression.feedback import Compressor, ErrorFeedback, Part, places_of
from dist_relu.core.arrays import Array, aligned_empty
from dist_relu.core.checks import check_fields, check_int
from dist_relu.kernels.compression import (
    leave_low_rank,
    orthonormalize_or_drop,
    project,
    project_columns,
    take_or_draw,
)
from dist_relu.kernels.copies import copy
from dist_relu.kernels.ordered_sum import add
from dist_relu.nn import Param, Sequential
from dist_relu.partition import Purpose, bounds, generator

_ERROR, _Q = 0, 1
"""Numbers of the states."""
_SUM, _P = 0, 1
"""Numbers of the rows that a compressor works in."""


@final
@dataclass(frozen=True)
class PowerSGD(ErrorFeedback):
    """Gradients of weights are sent as matrices of this rank, found by one step of subspace iteration from the last.

    M = gradient + error; P = M Q, made orthonormal; Q = Mᵀ P; P Qᵀ is what comes of M, and the rest of it the error of
    the next step. A weight is the matrix (inputs, outputs), that of a convolution (height · width · channels, outputs).
    What has one dimension is sent as it is, and so are weights that would not become smaller.
    Vogels et al. (2019), "PowerSGD", algorithms 1 and 2; Karimireddy et al. (2019) for the error feedback.

    There are no groups to choose: all of them project onto one P and one Q, sums over groups, and projections are
    linear. So what becomes of the gradient is, but for rounding, the same for any groups (section 3 of the paper), and
    one error is remembered, that of all of them together.
    """

    rank: int = 4

    def __post_init__(self) -> None:
        check_fields(self, rank=check_int)

    def num_groups(self, shards: int) -> int | None:
        return None

    def bytes_sent(self, model: Sequential) -> int:
        matrices = [param for param in model.params if self.compresses(param)]
        num_sent = self.rank * sum(sum(shape_of_matrix(param)) for param in matrices)
        return model.dtype.itemsize * (num_sent + model.num_params - total_size(matrices))

    def num_rows(self, shards: int) -> int:
        return 2

    def state_names(self, shards: int) -> Sequence[str]:
        return ["error", "Q of PowerSGD"]

    def compresses(self, param: Param) -> bool:
        """Tell whether the gradient of a parameter becomes smaller."""
        if not is_trained(param) or len(param.shape) < 2:
            return False
        rows, columns = shape_of_matrix(param)
        return self.rank * (rows + columns) < rows * columns

    def compressor(self, part: Part) -> Compressor:
        return _PowerSGD(part, self)


def shape_of_matrix(param: Param) -> tuple[int, int]:
    """The shape of a weight of two or more dimensions as a matrix."""
    return prod(param.shape[:-1]), param.shape[-1]


@final
class _PowerSGD(Compressor):
    """A worker has some rows and some columns of every matrix; P is made orthonormal by each of them."""

    def __init__(self, part: Part, compression: PowerSGD) -> None:
        self._barrier = part.barrier
        self._matrices = [
            _Matrix(part, number, place, shape_of_matrix(param), compression.rank)
            for number, (param, place) in enumerate(zip(part.params, places_of(part.params), strict=True))
            if compression.compresses(param)
        ]

    def compress(self, generation: int) -> None:
        self._barrier.wait()
        for matrix in self._matrices:
            matrix.project_rows(generation)
        self._barrier.wait()
        for matrix in self._matrices:
            matrix.project_columns(generation)
        self._barrier.wait()
        for matrix in self._matrices:
            matrix.leave_rows(generation)
        self._barrier.wait()

    def receive(self, total: Array) -> None:
        pass  # all have P and Q


@final
class _Matrix:
    """A matrix (N, M) that is sent at rank r, as far as a worker has to do with it.

    P is kept as r rows of N numbers and Q as r rows of M, each at the beginning of the parameter's place in its vector.
    """

    def __init__(self, part: Part, number: int, place: slice, shape: tuple[int, int], rank: int) -> None:
        num_rows, num_columns = shape
        dtype = part.sums.dtype
        self._first_row, stop = bounds(num_rows, part.workers)[part.rank]
        self._columns = bounds(num_columns, part.workers)[part.rank]
        self._matrix = part.sums[_SUM, place].reshape(shape)
        self._rows = self._matrix[self._first_row : stop]
        self._p = part.sums[_P, place][: rank * num_rows].reshape(rank, num_rows)
        self._errors = [state[_ERROR, place].reshape(shape)[self._first_row : stop] for state in part.states]
        self._qs = [state[_Q, place][: rank * num_columns].reshape(rank, num_columns) for state in part.states]
        draws = generator(part.seed, Purpose.LOW_RANK, number)
        self._first_q = draws.standard_normal((rank, num_columns)).astype(dtype)
        self._q = aligned_empty((rank, num_columns), dtype)
        self._wide_p = aligned_empty((rank, num_rows), np.float64)
        self._own_p = aligned_empty((rank, num_rows), dtype)

    def project_rows(self, generation: int) -> None:
        """P = M Q, in this worker's rows; rows of Q that are 0, as at first or where nothing was left, are drawn."""
        take_or_draw(self._qs[generation], self._first_q, self._q)
        add(self._rows.reshape(-1), self._errors[generation].reshape(-1))
        project(self._rows, self._q, self._p, self._first_row)

    def project_columns(self, generation: int) -> None:
        """Make P orthonormal, and Q = Mᵀ P in this worker's columns."""
        copy(self._p.reshape(-1), self._wide_p.reshape(-1))
        orthonormalize_or_drop(self._wide_p)
        copy(self._wide_p.reshape(-1), self._own_p.reshape(-1))
        project_columns(self._matrix, self._own_p, self._qs[1 - generation], *self._columns)

    def leave_rows(self, generation: int) -> None:
        """M = P Qᵀ, and the error is what M had beyond, in this worker's rows."""
        leave_low_rank(self._rows, self._own_p, self._qs[1 - generation], self._first_row, self._errors[1 - generation])

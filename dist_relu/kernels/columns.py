"""Sums down the columns of a few rows, in registers.

A sum over rows that stands in memory is loaded and stored for every row, which takes longer than the addition. Here
LANES columns at a time stay in registers from the first row to the last. Each sum is one chain, row after row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import kernel
from dist_relu.kernels.llvm import array_data

LANES = 16
"""Columns whose sums are formed at a time, at least; LLVM makes of them as many vectors as the processor needs."""

_WIDE = 256
"""Columns from which on rows as a whole are better, since memory is then read in its order."""


class _Columns:
    """Loads and sums of some neighbouring columns, while LLVM code is being built."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any, lanes: int = LANES) -> None:
        self._context, self.builder, self._signature, self._args = context, builder, signature, args
        bits = signature.args[0].dtype.bitwidth
        self.type = ir.VectorType(ir.FloatType() if bits == 32 else ir.DoubleType(), lanes)
        self._align = bits // 8

    def load(self, array: int, at: Any) -> Any:
        """The columns from element `at` on of the array that is argument number `array`."""
        return self.builder.load(self._pointer(array, at), align=self._align)

    def store(self, vector: Any, array: int, at: Any) -> None:
        self.builder.store(vector, self._pointer(array, at), align=self._align)

    def sums(
        self, num_sums: int, at: Any, stride: Any, num_rows: Any, terms: Callable[..., Sequence[Any]]
    ) -> list[Any]:
        """Add up what `terms` gives for each row, from where its columns begin."""
        zero = ir.Constant(self.type, None)
        totals = [cgutils.alloca_once_value(self.builder, zero) for _ in range(num_sums)]
        for total in totals:
            self.builder.store(zero, total)
        with cgutils.for_range(self.builder, num_rows, intp=num_rows.type) as row:
            here = self.builder.add(at, self.builder.mul(row.index, stride))
            for total, term in zip(totals, terms(here), strict=True):
                self.builder.store(self.builder.fadd(self.builder.load(total), term), total)
        return [self.builder.load(total) for total in totals]

    def _pointer(self, array: int, at: Any) -> Any:
        data = array_data(self._context, self.builder, self._signature, self._args, array)
        return self.builder.bitcast(self.builder.gep(data, [at]), self.type.as_pointer())


_I = types.int64


@intrinsic
def _sum(typing_context: Any, x: Any, at: Any, stride: Any, num_rows: Any, total: Any, column: Any) -> Any:
    """total = the sums of LANES columns of x, from element `at` on; all arrays are flat."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        columns, (_, at, stride, num_rows, _, column) = _Columns(context, builder, signature, args), args
        [total] = columns.sums(1, at, stride, num_rows, lambda here: [columns.load(0, here)])
        columns.store(total, 4, column)
        return context.get_dummy_value()

    return types.none(x, _I, _I, _I, total, _I), codegen


@intrinsic
def _sum_squares(
    typing_context: Any, x: Any, at: Any, stride: Any, num_rows: Any, centre: Any, total: Any, column: Any
) -> Any:
    """total = the sums of (x - centre)², as `_sum` adds."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        columns, (_, at, stride, num_rows, _, _, column) = _Columns(context, builder, signature, args), args
        middle = columns.load(4, column)

        def square(here: Any) -> list[Any]:
            distance = builder.fsub(columns.load(0, here), middle)
            return [builder.fmul(distance, distance)]

        [total] = columns.sums(1, at, stride, num_rows, square)
        columns.store(total, 5, column)
        return context.get_dummy_value()

    return types.none(x, _I, _I, _I, centre, total, _I), codegen


def _cut_sums(lanes: int) -> Any:
    """Make an intrinsic that sums so many columns as `sum_few_rows_with_distances` does, with ReLU."""

    @intrinsic
    def sum_cut(
        typing_context: Any,
        dy: Any,
        x: Any,
        at: Any,
        stride: Any,
        num_rows: Any,
        scale: Any,
        shift: Any,
        means: Any,
        scaled: Any,
        plain: Any,
        column: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            columns = _Columns(context, builder, signature, args, lanes)
            _, _, at, stride, num_rows, *_, column = args
            scale, shift, mean = (columns.load(number, column) for number in (5, 6, 7))
            zero = ir.Constant(columns.type, None)

            def terms(here: Any) -> list[Any]:
                x = columns.load(1, here)
                is_cut = builder.fcmp_ordered("<=", builder.fadd(builder.fmul(scale, x), shift), zero)
                d = builder.select(is_cut, zero, columns.load(0, here))
                return [builder.fmul(d, builder.fsub(x, mean)), d]

            totals = columns.sums(2, at, stride, num_rows, terms)
            columns.store(totals[0], 8, column)
            columns.store(totals[1], 9, column)
            return context.get_dummy_value()

        return types.none(dy, x, _I, _I, _I, scale, shift, means, scaled, plain, _I), codegen

    return sum_cut


# Memory that is not in the cache is read best in its order: as many columns at once as there are.
_sum_16, _sum_32, _sum_64 = _cut_sums(LANES), _cut_sums(2 * LANES), _cut_sums(4 * LANES)


@kernel
def sum_few_rows(x: Array, first: int, stop: int, total: Array) -> None:
    """total = the sum of the rows from `first` to `stop`.  x: (M, C).  total: (C,)."""
    width = x.shape[1]
    if LANES <= width <= _WIDE:
        flat = x.reshape(-1)
        for k in range(0, width, LANES):
            column = min(k, width - LANES)  # what the last one has in common with that before comes to the same
            _sum(flat, first * width + column, width, stop - first, total, column)
        return
    total[:] = 0
    for m in range(first, stop):
        row = x[m]
        for k in range(width):
            total[k] += row[k]


@kernel
def sum_squares_of_few_rows(x: Array, first: int, stop: int, centre: Array, total: Array) -> None:
    """total = the sum of (x - centre)² over the rows from `first` to `stop`.  x: (M, C).  centre, total: (C,)."""
    width = x.shape[1]
    if LANES <= width <= _WIDE:
        flat = x.reshape(-1)
        for k in range(0, width, LANES):
            column = min(k, width - LANES)
            _sum_squares(flat, first * width + column, width, stop - first, centre, total, column)
        return
    total[:] = 0
    for m in range(first, stop):
        row = x[m]
        for k in range(width):
            d = row[k] - centre[k]
            total[k] += d * d


@kernel
def sum_few_rows_with_distances(
    dy: Array, x: Array, first: int, stop: int, scale: Array, shift: Array, means: Array, scaled: Array, plain: Array
) -> None:
    """scaled = Σ dy (x - mean) and plain = Σ dy over the rows from `first` to `stop`.

    dy counts as 0 where scale x + shift <= 0.  dy, x: (M, C), all others: (C,).
    """
    width = x.shape[1]
    if LANES <= width <= _WIDE:
        at, rows, d_flat, x_flat = first * width, stop - first, dy.reshape(-1), x.reshape(-1)
        lanes = 4 * LANES if width >= 4 * LANES else 2 * LANES if width >= 2 * LANES else LANES
        for k in range(0, width, lanes):
            c = min(k, width - lanes)
            if lanes == 4 * LANES:
                _sum_64(d_flat, x_flat, at + c, width, rows, scale, shift, means, scaled, plain, c)
            elif lanes == 2 * LANES:
                _sum_32(d_flat, x_flat, at + c, width, rows, scale, shift, means, scaled, plain, c)
            else:
                _sum_16(d_flat, x_flat, at + c, width, rows, scale, shift, means, scaled, plain, c)
        return
    zero = x.dtype.type(0)
    scaled[:] = 0
    plain[:] = 0
    for m in range(first, stop):
        x_row, dy_row = x[m], dy[m]
        for c in range(width):
            d = dy_row[c]
            d = zero if scale[c] * x_row[c] + shift[c] <= zero else d
            scaled[c] += d * (x_row[c] - means[c])
            plain[c] += d

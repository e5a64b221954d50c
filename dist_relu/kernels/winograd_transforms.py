"""The transforms of Winograd's F(4x4, 3x3), of a vector of channels or filters at once.

The transforms are evaluation and interpolation of polynomials at 0, ±A, ±B and infinity. With the usual points, 1 and
2, an output is wrong by up to 3e-5 of the outputs' root mean square; with these, by up to 1e-5, where products of
windows and filters are by 5e-6.

Winograd (1980); Lavin and Gray (2016), section 4.3; Barabasz et al. (2020) on points.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from dist_relu.kernels.llvm import array_data
from dist_relu.kernels.vectors import VECTOR_BYTES

TILE, PATCH = 4, 6

_A, _B = 0.75, 1.5
_A2, _B2 = _A * _A, _B * _B
_OF_A, _OF_B = 2 * _A2 * (_A2 - _B2), 2 * _B2 * (_B2 - _A2)
"""A filter's polynomial is divided by these products of differences between the points, where it is evaluated."""


class _Lanes:
    """Arithmetic of vectors, while LLVM code is being built."""

    def __init__(self, builder: Any, bits: int) -> None:
        self._builder, self.align = builder, bits // 8
        self.lanes = VECTOR_BYTES // self.align
        self._number = ir.FloatType() if bits == 32 else ir.DoubleType()
        self.type = ir.VectorType(self._number, self.lanes)
        fma_type = ir.FunctionType(self.type, [self.type] * 3)
        self._fma = cgutils.get_or_insert_function(builder.module, fma_type, f"llvm.fma.v{self.lanes}f{bits}")

    def constant(self, number: float) -> Any:
        return ir.Constant(self.type, [ir.Constant(self._number, number)] * self.lanes)

    def add(self, x: Any, y: Any) -> Any:
        return self._builder.fadd(x, y)

    def sub(self, x: Any, y: Any) -> Any:
        return self._builder.fsub(x, y)

    def times(self, factor: float, x: Any) -> Any:
        return self._builder.fmul(self.constant(factor), x)

    def add_times(self, factor: float, x: Any, y: Any) -> Any:
        """factor x + y, rounded once."""
        return self._builder.call(self._fma, [self.constant(factor), x, y])

    def broadcast(self, number: Any) -> Any:
        undefined, lane = ir.Constant(self.type, ir.Undefined), ir.IntType(32)
        first = self._builder.insert_element(undefined, number, lane(0))
        lanes = ir.Constant(ir.VectorType(lane, self.lanes), [0] * self.lanes)
        return self._builder.shuffle_vector(first, undefined, lanes)

    def load(self, base: Any, at: Any) -> Any:
        return self._builder.load(self._pointer(base, at), align=self.align)

    def store(self, vector: Any, base: Any, at: Any) -> None:
        self._builder.store(vector, self._pointer(base, at), align=self.align)

    def _pointer(self, base: Any, at: Any) -> Any:
        return self._builder.bitcast(self._builder.gep(base, [at]), self.type.as_pointer())


# Transforms of one dimension: Bᵀ, Aᵀ, A, G and Gᵀ in the words of Lavin and Gray.


def _of_pixels(v: _Lanes, x: list[Any]) -> list[Any]:
    """From 6 pixels."""
    even_a, odd_a = v.add_times(-_B2, x[2], x[4]), v.add_times(-_B2, x[1], x[3])
    even_b, odd_b = v.add_times(-_A2, x[2], x[4]), v.add_times(-_A2, x[1], x[3])
    return [
        v.add_times(_A2 * _B2, x[0], v.add_times(-_A2 - _B2, x[2], x[4])),
        v.add_times(_A, odd_a, even_a),
        v.add_times(-_A, odd_a, even_a),
        v.add_times(_B, odd_b, even_b),
        v.add_times(-_B, odd_b, even_b),
        v.add_times(_A2 * _B2, x[1], v.add_times(-_A2 - _B2, x[3], x[5])),
    ]


def _to_outputs(v: _Lanes, m: list[Any]) -> list[Any]:
    """To 4 outputs."""
    even_a, odd_a, even_b, odd_b = v.add(m[1], m[2]), v.sub(m[1], m[2]), v.add(m[3], m[4]), v.sub(m[3], m[4])
    return [
        v.add(m[0], v.add(even_a, even_b)),
        v.add_times(_A, odd_a, v.times(_B, odd_b)),
        v.add_times(_A2, even_a, v.times(_B2, even_b)),
        v.add_times(_A * _A2, odd_a, v.add_times(_B * _B2, odd_b, m[5])),
    ]


def _of_outputs(v: _Lanes, y: list[Any]) -> list[Any]:
    """From the gradients of 4 outputs."""
    even_a, odd_a = v.add_times(_A2, y[2], y[0]), v.add_times(_A2, y[3], y[1])
    even_b, odd_b = v.add_times(_B2, y[2], y[0]), v.add_times(_B2, y[3], y[1])
    return [
        y[0],
        v.add_times(_A, odd_a, even_a),
        v.add_times(-_A, odd_a, even_a),
        v.add_times(_B, odd_b, even_b),
        v.add_times(-_B, odd_b, even_b),
        y[3],
    ]


def _of_filters(v: _Lanes, w: list[Any]) -> list[Any]:
    """From 3 weights."""
    even_a, even_b = v.add_times(_A2, w[2], w[0]), v.add_times(_B2, w[2], w[0])
    return [
        v.times(1 / (_A2 * _B2), w[0]),
        v.times(1 / _OF_A, v.add_times(_A, w[1], even_a)),
        v.times(1 / _OF_A, v.add_times(-_A, w[1], even_a)),
        v.times(1 / _OF_B, v.add_times(_B, w[1], even_b)),
        v.times(1 / _OF_B, v.add_times(-_B, w[1], even_b)),
        w[2],
    ]


def _to_filters(v: _Lanes, m: list[Any]) -> list[Any]:
    """To the gradients of 3 weights."""
    even_a, odd_a = v.times(1 / _OF_A, v.add(m[1], m[2])), v.times(1 / _OF_A, v.sub(m[1], m[2]))
    even_b, odd_b = v.times(1 / _OF_B, v.add(m[3], m[4])), v.times(1 / _OF_B, v.sub(m[3], m[4]))
    return [
        v.add_times(1 / (_A2 * _B2), m[0], v.add(even_a, even_b)),
        v.add_times(_A, odd_a, v.times(_B, odd_b)),
        v.add_times(_A2, even_a, v.add_times(_B2, even_b, m[5])),
    ]


def _emit(
    v: _Lanes,
    builder: Any,
    function: Callable[[_Lanes, list[Any]], list[Any]],
    size: int,
    source: tuple[Any, ...],
    target: tuple[Any, ...],
    finish: Callable[[Any], Any] = lambda number: number,
) -> None:
    """Transform a square of `size` x `size` vectors in both dimensions.

    source, target: pointer, where the square begins, how far rows and what stands beside one another are apart.
    finish: what is done to each vector of the result.
    """

    def at(place: tuple[Any, ...], r: int, p: int) -> Any:
        _, start, row, beside = place
        return builder.add(start, builder.add(builder.mul(row, row.type(r)), builder.mul(beside, row.type(p))))

    columns = [function(v, [v.load(source[0], at(source, r, p)) for r in range(size)]) for p in range(size)]
    for r in range(len(columns[0])):
        for p, number in enumerate(function(v, [column[r] for column in columns])):
            v.store(finish(number), target[0], at(target, r, p))


def _transform(function: Callable[[_Lanes, list[Any]], list[Any]], size: int) -> Any:
    """Make an intrinsic of `_emit`, for flat arrays x and z."""

    @intrinsic
    def transform(
        typing_context: Any, x: Any, x_at: Any, x_row: Any, x_beside: Any, z: Any, z_at: Any, z_row: Any, z_beside: Any
    ) -> Any:
        i = types.int64

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            source, target = (array_data(context, builder, signature, args, number) for number in (0, 4))
            v = _Lanes(builder, signature.args[0].dtype.bitwidth)
            _emit(v, builder, function, size, (source, *args[1:4]), (target, *args[5:]))
            return context.get_dummy_value()

        return types.none(x, i, i, i, z, i, i, i), codegen

    return transform


@intrinsic
def transform_to_outputs(
    typing_context: Any,
    x: Any,
    x_at: Any,
    x_row: Any,
    x_beside: Any,
    z: Any,
    z_at: Any,
    z_row: Any,
    z_beside: Any,
    bias: Any,
    bias_at: Any,
    floor: Any,
) -> Any:
    """Transform to 4 x 4 outputs, add a bias, and let `floor` be the least of them."""
    i = types.int64

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, target, offsets = (array_data(context, builder, signature, args, number) for number in (0, 4, 8))
        v = _Lanes(builder, signature.args[0].dtype.bitwidth)
        offset, least = v.load(offsets, args[9]), v.broadcast(args[10])

        def finish(number: Any) -> Any:
            number = v.add(number, offset)
            return builder.select(builder.fcmp_ordered("<=", number, least), least, number)

        _emit(v, builder, _to_outputs, PATCH, (source, *args[1:4]), (target, *args[5:8]), finish)
        return context.get_dummy_value()

    return types.none(x, i, i, i, z, i, i, i, bias, i, x.dtype), codegen


transform_pixels = _transform(_of_pixels, PATCH)
transform_outputs = _transform(_of_outputs, TILE)
transform_filters = _transform(_of_filters, 3)
transform_to_filters = _transform(_to_filters, PATCH)

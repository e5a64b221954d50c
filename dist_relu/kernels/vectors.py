"""Vectors of numbers, as LLVM has them: loads, stores, fused multiply-adds, and squares transposed by shuffles."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from dist_relu.kernels.llvm import array_data
from dist_relu.kernels.registers import REGISTERS

VECTOR_BYTES = REGISTERS.width_bytes
LINE_BYTES = 64
_INT32 = ir.IntType(32)
_UNIT_BYTES = 16
"""Processors shuffle within units of this size at the least cost."""


class Vectors:
    """Operations on vectors of an array's numbers, while LLVM code is being built."""

    def __init__(self, builder: Any, array: Any) -> None:
        bits = array.dtype.bitwidth
        self._builder = builder
        self.lanes = VECTOR_BYTES * 8 // bits
        self.type = ir.VectorType(ir.FloatType() if bits == 32 else ir.DoubleType(), self.lanes)
        fma_type = ir.FunctionType(self.type, [self.type] * 3)
        self._fma = cgutils.get_or_insert_function(builder.module, fma_type, f"llvm.fma.v{self.lanes}f{bits}")
        self.number_bytes = bits // 8
        self.zero = ir.Constant(self.type, None)
        self.undefined = ir.Constant(self.type, ir.Undefined)

    def load(self, base: Any, index: Any, lanes: Any | None = None) -> Any:
        """Load a vector, or only some `lanes` of one."""
        if lanes is None:
            return self._builder.load(self._at(base, index), align=self.number_bytes)
        return self._masked("load", self.type, [self._at(base, index), _INT32(self.number_bytes), lanes, self.zero])

    def store(self, vector: Any, base: Any, index: Any, lanes: Any | None = None) -> None:
        """Store a vector, or only some `lanes` of it."""
        if lanes is None:
            self._builder.store(vector, self._at(base, index), align=self.number_bytes)
            return
        arguments = [vector, self._at(base, index), _INT32(self.number_bytes), lanes]
        self._masked("store", ir.VoidType(), arguments)

    def first_lanes(self, number: Any) -> Any:
        """Return the first lanes of a vector, fewer than all, for `load` and `store`."""
        lanes = ir.VectorType(_INT32, self.lanes)
        none = ir.Constant(lanes, ir.Undefined)
        first = self._builder.insert_element(none, self._builder.trunc(number, _INT32), _INT32(0))
        limits = self._shuffle(first, none, [0] * self.lanes)
        return self._builder.icmp_signed("<", ir.Constant(lanes, list(range(self.lanes))), limits)

    def relu(self, vector: Any) -> Any:
        return self._builder.select(self._builder.fcmp_ordered("<=", vector, self.zero), self.zero, vector)

    def broadcast(self, base: Any, distance_bytes: Any) -> Any:
        """Load the number so many bytes behind `base` into every lane of a vector."""
        byte = self._builder.gep(self._builder.bitcast(base, ir.IntType(8).as_pointer()), [distance_bytes])
        number = self._builder.load(self._builder.bitcast(byte, base.type))
        first = self._builder.insert_element(self.undefined, number, _INT32(0))
        return self._shuffle(first, self.undefined, [0] * self.lanes)

    def opaque(self, pointer: Any) -> Any:
        """Return `pointer`, of which LLVM forgets how it came about: else it keeps one a row, and not in registers."""
        return self._builder.asm(ir.FunctionType(pointer.type, [pointer.type]), "", "=r,0", [pointer], False)

    def prefetch(self, base: Any, index: Any, num_vectors: int, level: int, *, writes: bool = False) -> None:
        """Begin to fetch the cache lines of so many vectors, which need not exist."""
        byte, number = ir.IntType(8).as_pointer(), _INT32
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = cgutils.get_or_insert_function(self._builder.module, kind, "llvm.prefetch.p0")
        start = self._builder.bitcast(self._builder.gep(base, [index]), byte)
        for line in range(0, num_vectors * VECTOR_BYTES, LINE_BYTES):
            here = self._builder.gep(start, [number(line)])
            self._builder.call(function, [here, number(int(writes)), number(level), number(1)])

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        return self._builder.call(self._fma, [a, b, c])

    def transposed(self, rows: list[Any]) -> list[Any]:
        """Return the columns of a square of vectors."""
        unit = _UNIT_BYTES // self.number_bytes
        half = unit // 2
        for _ in range(unit.bit_length() - 1):  # a perfect shuffle of units rotates the bits of (row, lane) by one
            groups = [rows[first : first + unit] for first in range(0, self.lanes, unit)]
            rows = [
                row
                for group in groups
                for r in range(half)
                for row in self._interleave(group[r], group[r + half], unit)
            ]
        while unit < self.lanes:
            rows = self._exchange(rows, unit)
            unit *= 2
        return rows

    def _interleave(self, a: Any, b: Any, unit: int) -> tuple[Any, Any]:
        """Return (a0, b0, a1, b1, ...) of each unit, the first halves of them and the second ones."""
        lower, upper = (
            [
                lane
                for first in range(start, self.lanes, unit)
                for i in range(unit // 2)
                for lane in (first + i, first + i + self.lanes)
            ]
            for start in (0, unit // 2)
        )
        return self._shuffle(a, b, lower), self._shuffle(a, b, upper)

    def _exchange(self, rows: list[Any], size: int) -> list[Any]:
        """Exchange blocks of so many lanes between rows as far apart, as a transpose of blocks does."""
        result = list(rows)
        for r, s in ((r, r + size) for r in range(self.lanes) if not r & size):
            lower = [lane + (self.lanes - size if lane & size else 0) for lane in range(self.lanes)]
            upper = [lane + (self.lanes if lane & size else size) for lane in range(self.lanes)]
            result[r], result[s] = self._shuffle(rows[r], rows[s], lower), self._shuffle(rows[r], rows[s], upper)
        return result

    def _shuffle(self, a: Any, b: Any, order: list[int]) -> Any:
        return self._builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_INT32, self.lanes), order))

    def _masked(self, verb: str, returned: Any, arguments: list[Any]) -> Any:
        kind = ir.FunctionType(returned, [argument.type for argument in arguments])
        name = f"llvm.masked.{verb}.v{self.lanes}f{self.number_bytes * 8}.p0"
        return self._builder.call(cgutils.get_or_insert_function(self._builder.module, kind, name), arguments)

    def _at(self, base: Any, index: Any) -> Any:
        return self._builder.bitcast(self._builder.gep(base, [index]), self.type.as_pointer())


@intrinsic
def copy_vector(typing_context: Any, source: Any, source_at: Any, target: Any, target_at: Any) -> Any:
    """Copy one vector of numbers; source and target: flat."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, target = (array_data(context, builder, signature, args, number) for number in (0, 2))
        vectors = Vectors(builder, signature.args[0])
        vectors.store(vectors.load(source, args[1]), target, args[3])
        return context.get_dummy_value()

    return types.none(source, types.int64, target, types.int64), codegen


@intrinsic
def transpose_square(
    typing_context: Any, source: Any, source_at: Any, source_row: Any, target: Any, target_at: Any, target_row: Any
) -> Any:
    """Write the transpose of a square of as many rows as a vector has lanes; source and target: flat."""
    i = types.int64

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, target = (array_data(context, builder, signature, args, number) for number in (0, 3))
        _, source_at, source_row, _, target_at, target_row = args
        vectors = Vectors(builder, signature.args[0])

        def at(start: Any, row: Any, r: int) -> Any:
            return builder.add(start, builder.mul(row, row.type(r)))

        rows = [vectors.load(source, at(source_at, source_row, r)) for r in range(vectors.lanes)]
        for r, row in enumerate(vectors.transposed(rows)):
            vectors.store(row, target, at(target_at, target_row, r))
        return context.get_dummy_value()

    return types.none(source, i, i, target, i, i), codegen

"""What kernels say in LLVM's own terms, because neither Python nor Numba has a word for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


def polynomial(*, single: Sequence[float], double: Sequence[float]) -> Any:
    """A scalar: the polynomial with these coefficients (constant term first) by Horner's rule, fused.

    single: coefficients for float32.  double: for float64.
    """

    @intrinsic
    def evaluate(typing_context: Any, x: Any) -> Any:
        coefficients = single if x == types.float32 else double

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            constants = [ir.Constant(args[0].type, float(c)) for c in reversed(coefficients)]
            total = constants[0]
            for constant in constants[1:]:
                total = builder.fma(total, args[0], constant)
            return total

        return x(x), codegen

    return evaluate


@intrinsic
def fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a·b + c, rounded once."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fma(*args)

    return a(a, a, a), codegen


@intrinsic
def power_of_two(typing_context: Any, shifted: Any) -> Any:
    """2ⁿ for shifted = n + 1.5·2^m, with m bits of mantissa and n a whole number; normal numbers only."""
    word, mantissa_bits, bias = (32, 23, 127) if shifted == types.float32 else (64, 52, 1023)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        whole = ir.IntType(word)
        biased = builder.add(builder.bitcast(args[0], whole), ir.Constant(whole, bias))
        return builder.bitcast(builder.shl(biased, ir.Constant(whole, mantissa_bits)), args[0].type)

    return shifted(shifted), codegen


@intrinsic
def copysign(typing_context: Any, size: Any, sign: Any) -> Any:
    """|size| with the sign of `sign`, be they zeros."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number = args[0].type
        declared = builder.module.declare_intrinsic("llvm.copysign", [number], ir.FunctionType(number, [number] * 2))
        return builder.call(declared, args)

    return size(size, sign), codegen


@intrinsic
def maximum(typing_context: Any, a: Any, b: Any) -> Any:
    """The larger of two numbers, NaN if one is; a loop of it is vectorised, since any order gives the same."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number = args[0].type
        declared = builder.module.declare_intrinsic("llvm.maximum", [number], ir.FunctionType(number, [number] * 2))
        return builder.call(declared, args)

    return a(a, b), codegen


@intrinsic
def prefetch(typing_context: Any, x: Any, at: Any) -> Any:
    """Begin to fetch the cache line of x[at], which may lie beyond the end of x.

    For rows that are read as several streams at once: processors fetch ahead on their own within a page only.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        line = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [line.type, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [line, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.none(x, types.intp), codegen


def leading(count: int) -> Any:
    """A function for kernels: the first `count` elements of an array as a tuple, which no store to an array changes."""

    @intrinsic
    def load(typing_context: Any, x: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            data = context.make_array(signature.args[0])(context, builder, args[0]).data
            elements = [builder.load(builder.gep(data, [ir.IntType(64)(i)])) for i in range(count)]
            return context.make_tuple(builder, signature.return_type, elements)

        return types.UniTuple(x.dtype, count)(x), codegen

    return load


@intrinsic
def never_inline(typing_context: Any) -> Any:
    """Keep the kernel that says so a function of its own, which is compiled once and not at each of its calls."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.none(), codegen


CHAINS = 32


def _in_chains(term: Callable[..., Any]) -> Callable[..., Any]:
    """The code of a sum over array elements: element i belongs to chain i mod CHAINS; chains are added in halves.

    term: builds a vector's part of the sum from vectors of the arrays. LLVM cuts vectors of CHAINS numbers into those
    that the processor has, and the order of additions stays.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        *arrays, size = args
        bits = signature.return_type.bitwidth
        chains = ir.VectorType(ir.FloatType() if bits == 32 else ir.DoubleType(), CHAINS)
        total = cgutils.alloca_once_value(builder, ir.Constant(chains, None))
        data = [
            context.make_array(kind)(context, builder, array).data
            for kind, array in zip(signature.args, arrays, strict=False)
        ]
        with cgutils.for_range_slice(builder, size.type(0), size, size.type(CHAINS)) as (at, _):
            pointers = [builder.bitcast(builder.gep(start, [at]), chains.as_pointer()) for start in data]
            parts = [builder.load(pointer, align=bits // 8) for pointer in pointers]
            builder.store(builder.fadd(builder.load(total), term(builder, *parts)), total)
        sums, width, lane = builder.load(total), CHAINS, ir.IntType(32)
        while width > 1:
            width //= 2
            low, high = (ir.Constant(ir.VectorType(lane, width), list(range(i, i + width))) for i in (0, width))
            sums = builder.fadd(builder.shuffle_vector(sums, sums, low), builder.shuffle_vector(sums, sums, high))
        return builder.extract_element(sums, lane(0))

    return codegen


@intrinsic
def sum_in_chains(typing_context: Any, x: Any, size: Any) -> Any:
    """The sum of the first `size` elements of x, a multiple of CHAINS."""
    return x.dtype(x, types.intp), _in_chains(lambda builder, a: a)


@intrinsic
def dot_in_chains(typing_context: Any, x: Any, y: Any, size: Any) -> Any:
    """The sum of the products of the first `size` elements of x and y, a multiple of CHAINS."""
    return x.dtype(x, y, types.intp), _in_chains(lambda builder, a, b: builder.fmul(a, b))

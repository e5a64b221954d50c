"""What kernels say in LLVM's own terms, because neither Python nor Numba has a word for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from dist_relu.core.arrays import Array

_LINE_BYTES = 64


def array_data(context: Any, builder: Any, signature: Any, args: Any, number: int) -> Any:
    """Return the pointer to the elements of the array that is argument `number`."""
    return context.make_array(signature.args[number])(context, builder, args[number]).data


def polynomial(*, single: Sequence[float], double: Sequence[float]) -> Any:
    """Make a scalar of the polynomial with these coefficients (constant term first), by Horner's rule, fused.

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
    """Compute a·b + c, rounded once."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fma(*args)

    return a(a, a, a), codegen


@intrinsic
def power_of_two(typing_context: Any, shifted: Any) -> Any:
    """Compute 2ⁿ for shifted = n + 1.5·2^m, with m bits of mantissa and n a whole number; normal numbers only."""
    word, mantissa_bits, bias = (32, 23, 127) if shifted == types.float32 else (64, 52, 1023)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        whole = ir.IntType(word)
        biased = builder.add(builder.bitcast(args[0], whole), ir.Constant(whole, bias))
        return builder.bitcast(builder.shl(biased, ir.Constant(whole, mantissa_bits)), args[0].type)

    return shifted(shifted), codegen


@intrinsic
def bits_of(typing_context: Any, x: Any) -> Any:
    """Return a number's bits as a whole number."""
    word: Any = types.uint32 if x == types.float32 else types.uint64

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(word.bitwidth))

    return word(x), codegen


@intrinsic
def float32_of(typing_context: Any, bits: Any) -> Any:
    """Return the float32 that has these bits, the lower 32 of an int64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(builder.trunc(args[0], ir.IntType(32)), ir.FloatType())

    return types.float32(types.int64), codegen


@intrinsic
def copysign(typing_context: Any, size: Any, sign: Any) -> Any:
    """Give |size| the sign of `sign`, be they zeros."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number = args[0].type
        declared = builder.module.declare_intrinsic("llvm.copysign", [number], ir.FunctionType(number, [number] * 2))
        return builder.call(declared, args)

    return size(size, sign), codegen


@intrinsic
def maximum(typing_context: Any, a: Any, b: Any) -> Any:
    """Return the larger of two numbers, NaN if one is; a loop of it is vectorised, since any order gives the same."""

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
        data = array_data(context, builder, signature, args, 0)
        line = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [line.type, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [line, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.none(x, types.intp), codegen


def leading(count: int) -> Any:
    """Make a function that loads the first `count` elements of an array as a tuple, which no store can change."""

    @intrinsic
    def load(typing_context: Any, x: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            data = array_data(context, builder, signature, args, 0)
            elements = [builder.load(builder.gep(data, [ir.IntType(64)(i)])) for i in range(count)]
            return context.make_tuple(builder, signature.return_type, elements)

        return types.UniTuple(x.dtype, count)(x), codegen

    return load


@intrinsic
def run_of(typing_context: Any, x: Any, start: Any, size: Any) -> Any:
    """Return x[start : start + size] of a flat array, which must be there, and must not go before the run does.

    Slices are clamped to the array and their references counted, which takes longer than to add up a pixel.
    """
    kind = types.Array(x.dtype, 1, "C")

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        from numba.np.arrayobj import populate_array  # what only compiling needs is not imported by every process

        data = builder.gep(array_data(context, builder, signature, args, 0), [args[1]])
        run = context.make_array(kind)(context, builder)
        item_bytes = context.get_constant(types.intp, x.dtype.bitwidth // 8)
        populate_array(run, data, shape=[args[2]], strides=[item_bytes], itemsize=item_bytes, meminfo=None)
        return run._getvalue()

    return kind(x, types.intp, types.intp), codegen


CHAINS = 32
"""Sums that take turns, of which LLVM makes as many vectors as the processor needs; the order of additions stays."""


def _allocating(*, cleared: bool) -> Callable[[int, Any], Array]:
    """Make a function (size, dtype) that allocates a flat array, which begins on a cache line.

    NumPy's own are compiled anew by every process, a quarter of a second each time.
    """

    @intrinsic
    def allocate(typing_context: Any, size: Any, dtype: Any) -> Any:
        kind = types.Array(dtype.dtype, 1, "C")

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            from numba.np.arrayobj import populate_array  # what only compiling needs is not imported by every process

            array, element = context.make_array(kind)(context, builder), context.get_data_type(kind.dtype)
            item_bytes = args[0].type(context.get_abi_sizeof(element))
            size_bytes = builder.mul(args[0], item_bytes)
            memory = context.nrt.meminfo_alloc_aligned(builder, size_bytes, _LINE_BYTES)
            data = context.nrt.meminfo_data(builder, memory)
            if cleared:
                cgutils.memset(builder, data, size_bytes, 0)
            populate_array(
                array,
                data=builder.bitcast(data, element.as_pointer()),
                shape=[args[0]],
                strides=[item_bytes],
                itemsize=item_bytes,
                meminfo=memory,
            )
            return array._getvalue()

        return kind(types.intp, dtype), codegen

    return cast(Callable[[int, Any], Array], allocate)


empty, zeros = _allocating(cleared=False), _allocating(cleared=True)


def chains_of(bits: int) -> Any:
    """Return the type of a vector of CHAINS numbers of so many bits."""
    return ir.VectorType(ir.FloatType() if bits == 32 else ir.DoubleType(), CHAINS)


def in_chains(
    context: Any,
    builder: Any,
    signature: Any,
    args: Any,
    *,
    bits: int,
    num_sums: int,
    add: Callable[..., Sequence[Any]],
) -> list[Any]:
    """Emit sums over elements of arrays: element i belongs to chain i mod CHAINS, and chains are added in halves.

    args: arrays, and then how many of their elements count, a multiple of CHAINS.  bits: of a sum.  add: gives the
    vectors of sums from those before, in a list, and a vector of each array.
    """
    size, sum_type = args[-1], chains_of(bits)
    totals = [cgutils.alloca_once_value(builder, ir.Constant(sum_type, None)) for _ in range(num_sums)]
    starts = [array_data(context, builder, signature, args, number) for number in range(len(args) - 1)]
    item_bits = signature.args[0].dtype.bitwidth
    pointer_type = chains_of(item_bits).as_pointer()
    with cgutils.for_range_slice(builder, size.type(0), size, size.type(CHAINS)) as (at, _):
        pointers = [builder.bitcast(builder.gep(start, [at]), pointer_type) for start in starts]
        vectors = [builder.load(pointer, align=item_bits // 8) for pointer in pointers]
        sums = add([builder.load(total) for total in totals], *vectors)
        for total, vector in zip(totals, sums, strict=True):
            builder.store(vector, total)
    return [_sum_lanes(builder, builder.load(total)) for total in totals]


def _sum_lanes(builder: Any, vector: Any) -> Any:
    """Add the upper half of a vector to the lower one, and so on."""
    width, lane = CHAINS, ir.IntType(32)
    while width > 1:
        width //= 2
        low, high = (ir.Constant(ir.VectorType(lane, width), list(range(i, i + width))) for i in (0, width))
        vector = builder.fadd(builder.shuffle_vector(vector, vector, low), builder.shuffle_vector(vector, vector, high))
    return builder.extract_element(vector, lane(0))


@intrinsic
def sum_in_chains(typing_context: Any, x: Any, size: Any) -> Any:
    """Sum the first `size` elements of x, a multiple of CHAINS."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def add(totals: Any, a: Any) -> list[Any]:
            return [builder.fadd(totals[0], a)]

        return in_chains(context, builder, signature, args, bits=x.dtype.bitwidth, num_sums=1, add=add)[0]

    return x.dtype(x, types.intp), codegen


@intrinsic
def dot_in_chains(typing_context: Any, x: Any, y: Any, size: Any) -> Any:
    """Sum the products of the first `size` elements of x and y, a multiple of CHAINS."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def add(totals: Any, a: Any, b: Any) -> list[Any]:
            return [builder.fadd(totals[0], builder.fmul(a, b))]

        return in_chains(context, builder, signature, args, bits=x.dtype.bitwidth, num_sums=1, add=add)[0]

    return x.dtype(x, y, types.intp), codegen

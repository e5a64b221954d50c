"""The core's peak of fused multiply-adds, measured: what matrix products are held against."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import kernel
from dist_relu.kernels.llvm import array_data
from dist_relu.kernels.registers import REGISTERS

_NUM_CHAINS = 12
"""More than the eight or ten that keep two units busy, and few enough for 16 registers."""

_CALLS = 200
_CALL_S = 2e-4


@intrinsic
def _chains(typing_context: Any, x: Any, count: Any) -> Any:
    """Take `count` steps of every chain, each of which is a vector of x."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data, bits = array_data(context, builder, signature, args, 0), signature.args[0].dtype.bitwidth
        lanes = REGISTERS.width_bytes * 8 // bits
        vector, index = ir.VectorType(ir.FloatType() if bits == 32 else ir.DoubleType(), lanes), args[1].type
        fma_type = ir.FunctionType(vector, [vector] * 3)
        fma = cgutils.get_or_insert_function(builder.module, fma_type, f"llvm.fma.v{lanes}f{bits}")
        places = [
            builder.bitcast(builder.gep(data, [index(n * lanes)]), vector.as_pointer()) for n in range(_NUM_CHAINS)
        ]
        chains = [cgutils.alloca_once_value(builder, builder.load(place, align=bits // 8)) for place in places]
        half = ir.Constant(vector, [0.5] * lanes)
        with cgutils.for_range(builder, args[1], intp=index):
            for chain in chains:
                builder.store(builder.call(fma, [builder.load(chain), half, half]), chain)
        for chain, place in zip(chains, places, strict=True):
            builder.store(builder.load(chain), place, align=bits // 8)
        return context.get_dummy_value()

    return types.none(x, types.int64), codegen


@kernel
def _take_steps(x: Array, count: int) -> None:
    _chains(x, count)


def fma_peak(dtype: Any) -> float:
    """Measure the core's peak in GFLOP/s, with vectors as wide as kernels use them; it takes some 50 ms.

    The best of many short calls, since others only take away from it.  dtype: float32 or float64.
    """
    lanes = REGISTERS.width_bytes // np.dtype(dtype).itemsize
    x = np.ones(_NUM_CHAINS * lanes, dtype)
    _take_steps(x, 0)  # compiles it
    count = 1
    while _seconds(x, count) < _CALL_S:
        count *= 2
    seconds = min(_seconds(x, count) for _ in range(_CALLS))
    return 2 * x.size * count / seconds / 1e9


def _seconds(x: Array, count: int) -> float:
    begin = perf_counter()
    _take_steps(x, count)
    return perf_counter() - begin

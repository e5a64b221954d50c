"""Norms, clipping and averages of flat vectors.  n elements.

Squares are summed in float64, in CHAINS sums that take turns, as fused multiply-adds: a fixed order that is also a
vectorised one, with sums that stay in registers. LLVM does not find that by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import kernel
from dist_relu.kernels.llvm import CHAINS, chains_of, in_chains
from dist_relu.kernels.ordered_sum import BLOCK, sum_block


def _square_sums(num_sums: int, terms: Callable[..., Sequence[Any]]) -> Callable[..., Any]:
    """Build the code of the sums of squares of some terms.

    terms: gives vectors of them from a builder and a vector of each array.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = chains_of(64)
        fma_type = ir.FunctionType(wide, [wide] * 3)
        fma = cgutils.get_or_insert_function(builder.module, fma_type, f"llvm.fma.v{CHAINS}f64")

        def add(totals: Sequence[Any], *vectors: Any) -> list[Any]:
            numbers = [builder.fpext(term, wide) if term.type != wide else term for term in terms(builder, *vectors)]
            return [builder.call(fma, [n, n, total]) for n, total in zip(numbers, totals, strict=True)]

        sums = in_chains(context, builder, signature, args, bits=64, num_sums=num_sums, add=add)
        return context.make_tuple(builder, signature.return_type, sums)

    return codegen


@intrinsic
def _squares(typing_context: Any, x: Any, size: Any) -> Any:
    """Compute (Σ x²,) over the first `size` elements, a multiple of CHAINS."""
    return types.UniTuple(types.float64, 1)(x, types.intp), _square_sums(1, lambda builder, a: [a])


@intrinsic
def _squares_of_change(typing_context: Any, old: Any, new: Any, size: Any) -> Any:
    """Compute (Σ old², Σ (new - old)²) over the first `size` elements, a multiple of CHAINS."""
    signature = types.UniTuple(types.float64, 2)(old, new, types.intp)
    return signature, _square_sums(2, lambda builder, a, b: [a, builder.fsub(b, a)])


@intrinsic
def _squares_of_step(typing_context: Any, gradient: Any, old: Any, new: Any, size: Any) -> Any:
    """Compute (Σ gradient², Σ old², Σ (new - old)²) over the first `size` elements, a multiple of CHAINS."""
    signature = types.UniTuple(types.float64, 3)(gradient, old, new, types.intp)
    return signature, _square_sums(3, lambda builder, g, a, b: [g, a, builder.fsub(b, a)])


@kernel
def sum_of_squares(x: Array) -> float:
    """Compute Σ x²; x: (n,)."""
    whole = x.shape[0] // CHAINS * CHAINS
    total: float = _squares(x, whole)[0]
    for i in range(whole, x.shape[0]):
        value = np.float64(x[i])  # float() would leave it in float32
        total += value * value
    return total


@kernel
def squares_of_change(old: Array, new: Array) -> tuple[float, float]:
    """Compute Σ old² and Σ (new - old)²; both (n,)."""
    whole = old.shape[0] // CHAINS * CHAINS
    before, change = _squares_of_change(old, new, whole)
    for i in range(whole, old.shape[0]):
        value, difference = np.float64(old[i]), np.float64(new[i] - old[i])
        before += value * value
        change += difference * difference
    return before, change


@kernel
def squares_of_step(
    rows: Array, first: int, carries: Array, stack: Array, old: Array, new: Array
) -> tuple[float, float, float]:
    """Compute Σ g², Σ old² and Σ (new - old)², with g the ordered sum of `kernels.ordered_sum`; old, new: (n,)."""
    gradient, before, change = 0.0, 0.0, 0.0
    for start in range(0, old.shape[0], BLOCK):
        stop = min(start + BLOCK, old.shape[0])
        if carries.shape[0] == 1:
            g = rows[0, first + start : first + stop]
        else:
            g = sum_block(rows, first + start, carries, stack, stop - start)
        p, q = old[start:stop], new[start:stop]
        whole = (stop - start) // CHAINS * CHAINS
        sums = _squares_of_step(g, p, q, whole)
        gradient += sums[0]
        before += sums[1]
        change += sums[2]
        for i in range(whole, stop - start):
            slope, value, difference = np.float64(g[i]), np.float64(p[i]), np.float64(q[i] - p[i])
            gradient += slope * slope
            before += value * value
            change += difference * difference
    return gradient, before, change


@kernel
def measure(x: Array, squares: Array) -> None:
    """squares[0] = Σ x²; x: (n,)."""
    squares[0] = sum_of_squares(x)


@kernel
def clip(x: Array, limit: float) -> None:
    """x = x between -limit and limit, in place; (n,).  NaN goes through."""
    high = x.dtype.type(limit)
    low = -high
    for i in range(x.shape[0]):
        v = x[i]
        v = low if v < low else v
        x[i] = high if v > high else v


@kernel
def shrink(x: Array, factor: Array) -> None:
    """x *= factor[0] in place, unless that is 1 or more; x: (n,), factor: (1,) float64."""
    if not factor[0] >= 1:
        by = x.dtype.type(factor[0])
        for i in range(x.shape[0]):
            x[i] *= by


@kernel
def average(old: Array, value: Array, new: Array, decay: float) -> None:
    """new = decay old + (1 - decay) value; all (n,)."""
    weight = old.dtype.type(1 - decay)
    for i in range(old.shape[0]):
        new[i] = old[i] + weight * (value[i] - old[i])

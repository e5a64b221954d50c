"""Sums of many terms.

One chain of additions in float32 over 10^6 terms keeps two or three digits. So a sum is cut into chains of TERMS terms,
in the arrays' own dtype, and what these come to is added up in float64, in their order. Sums of fewer terms are the
plain chains, bit by bit. The order depends on the number of terms alone: not on the width of the processor's vectors.

A sum over rows keeps its chains in the array of the result, `part`, and the float64 sums of finished ones in `wide`,
which is empty where there is only one chain.
"""

from __future__ import annotations

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.kernels.columns import sum_few_rows
from dist_relu.kernels.jit import kernel
from dist_relu.kernels.llvm import CHAINS, dot_in_chains, empty, sum_in_chains, zeros
from dist_relu.kernels.ordered_sum import add

TERMS = 128
"""Terms of a chain."""

_ROW = CHAINS * TERMS


@kernel
def wide_sums(num_terms: int, size: int) -> Array:
    """Make zeros for `size` sums of so many terms, float64; none where there is only one chain."""
    return zeros(size if num_terms > TERMS else 0, np.float64)


@kernel
def end_chain(part: Array, wide: Array) -> None:
    """Add the finished chains to the wide sums, and begin new ones; both (n,), or wide is empty."""
    for k in range(wide.shape[0]):
        wide[k] += part[k]
        part[k] = 0


@kernel
def end_sum(part: Array, wide: Array) -> None:
    """part = the sum of all chains, and the wide sums begin anew; both (n,), or wide is empty."""
    for k in range(wide.shape[0]):
        part[k] = wide[k] + part[k]
        wide[k] = 0


@kernel
def sum_rows(dz: Array, total: Array) -> None:
    """total = the sum of the rows of dz; dz: (N, K), total: (K,)."""
    if dz.shape[0] <= TERMS:
        sum_few_rows(dz, 0, dz.shape[0], total)
        return
    wide = zeros(total.shape[0], np.float64)
    for start in range(0, dz.shape[0], TERMS):
        sum_few_rows(dz, start, min(start + TERMS, dz.shape[0]), total)
        end_chain(total, wide)
    end_sum(total, wide)


@kernel
def sum_row(x: Array) -> float:
    """Sum x (K,), in CHAINS chains that take turns, of TERMS terms at most."""
    total = 0.0
    for start in range(0, x.shape[0], _ROW):
        row = x[start : start + _ROW]
        whole = row.shape[0] // CHAINS * CHAINS
        part = sum_in_chains(row, whole)
        for k in range(whole, row.shape[0]):
            part += row[k]
        total += part
    return x.dtype.type(total)  # type: ignore[no-any-return]


@kernel
def dot_row(x: Array, y: Array) -> float:
    """Sum the products of x and y (K,), as `sum_row` adds."""
    total = 0.0
    for start in range(0, x.shape[0], _ROW):
        a, b = x[start : start + _ROW], y[start : start + _ROW]
        whole = a.shape[0] // CHAINS * CHAINS
        part = dot_in_chains(a, b, whole)
        for k in range(whole, a.shape[0]):
            part += a[k] * b[k]
        total += part
    return x.dtype.type(total)  # type: ignore[no-any-return]


@kernel
def pairwise_sum(x: Array) -> float:
    """Sum x (n,) float64 as NumPy does: the halves of halves of it, down to TERMS terms, in eight chains each.

    Of the halves that wait, each has its depth in the tree; two sums of the same depth that lie together become one.
    """
    starts, sizes, depths = empty(64, np.int64), empty(64, np.int64), empty(64, np.int64)
    sums, depths_of_sums = empty(64, np.float64), empty(64, np.int64)
    starts[0], sizes[0], depths[0] = 0, x.shape[0], 0
    num_waiting, num_sums = 1, 0
    while num_waiting:
        top = num_waiting - 1
        start, size, depth = starts[top], sizes[top], depths[top]
        if size > TERMS:
            half = size // 2 // 8 * 8
            starts[top], sizes[top], depths[top] = start + half, size - half, depth + 1
            starts[top + 1], sizes[top + 1], depths[top + 1] = start, half, depth + 1
            num_waiting += 1
            continue
        num_waiting -= 1
        total = _sum_in_eight_chains(x[start : start + size])
        while num_sums and depths_of_sums[num_sums - 1] == depth:
            num_sums -= 1
            total = sums[num_sums] + total
            depth -= 1
        sums[num_sums], depths_of_sums[num_sums] = total, depth
        num_sums += 1
    return float(sums[0])


@kernel
def _sum_in_eight_chains(x: Array) -> float:
    total = 0.0
    whole = x.shape[0] // 8 * 8
    if whole:
        chains = x[:8].copy()
        for start in range(8, whole, 8):
            for k in range(8):
                chains[k] += x[start + k]
        total = ((chains[0] + chains[1]) + (chains[2] + chains[3])) + (
            (chains[4] + chains[5]) + (chains[6] + chains[7])
        )
    for i in range(whole, x.shape[0]):
        total += x[i]
    return total


@kernel
def add_rows_at(indices: Array, rows: Array, table: Array) -> None:
    """table[indices[m]] += rows[m], one after another.  indices: (M,) integers.  rows: (M, C).  table: (V, C).

    Rows of the table that get more than one chain have wide sums of their own.
    """
    counts, most = zeros(table.shape[0], np.int64), 0
    for m in range(indices.shape[0]):
        counts[indices[m]] += 1
        most = max(most, counts[indices[m]])
    if most <= TERMS:
        for m in range(indices.shape[0]):
            add(table[indices[m]], rows[m])
        return
    place, num_wide = empty(counts.shape[0], np.int64), 0
    for v in range(counts.shape[0]):
        place[v] = num_wide
        num_wide += counts[v] > TERMS
    wide, added = np.zeros((num_wide, table.shape[1])), np.zeros_like(counts)
    for m in range(indices.shape[0]):
        v = indices[m]
        add(table[v], rows[m])
        added[v] += 1
        if added[v] % TERMS == 0 and counts[v] > TERMS:
            end_chain(table[v], wide[place[v]])
    for v in range(counts.shape[0]):
        if counts[v] > TERMS:
            end_sum(table[v], wide[place[v]])

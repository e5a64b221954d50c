"""The ordered sum of partial gradients, fused with what is done with it.

`rows` (R, >= first + n) holds partial sums of the chunk in its columns from `first` on: rows as a whole and an
offset, because loops over a slice of a matrix are not vectorised. `carries` (R,) says how the rows are added: row after
row is pushed onto a stack, and after row r the two topmost are added carries[r] times, as a binary counter carries. So
the order of the additions is a property of the summation tree alone (`dist_relu.partition`). The sum is formed in
blocks that stay in the first-level cache; `stack` (>= depth, BLOCK) is their scratch memory.

All arrays of a call have one dtype. `old` and `new` are chunks of two generations and may not overlap, except
that they may be the same array.
"""

from __future__ import annotations

from dist_relu.core.arrays import Array
from dist_relu.kernels.copies import copy
from dist_relu.kernels.jit import kernel, linked_kernel

BLOCK = 1024


@kernel
def add(total: Array, term: Array) -> None:
    """total += term, both (n,)."""
    for i in range(total.shape[0]):
        total[i] += term[i]


@kernel
def sum_of_two(left: Array, right: Array, total: Array) -> None:
    """total = left + right, all (n,)."""
    for i in range(total.shape[0]):
        total[i] = left[i] + right[i]


@linked_kernel
def sum_block(rows: Array, start: int, carries: Array, stack: Array, n: int) -> Array:
    """Add rows[:, start:start + n] along the tree; the sum stands in stack[0], or where it is if there is one row."""
    if carries.shape[0] == 1:
        return rows[0, start : start + n]
    top = 0
    for r in range(carries.shape[0]):
        row = rows[r, start : start + n]
        if carries[r] == 0:
            if carries[r + 1] == 0:
                copy(row, stack[top, :n])
                top += 1
            continue
        if carries[r - 1] == 0:  # the two have not been copied to the stack, which saves a way
            sum_of_two(rows[r - 1, start : start + n], row, stack[top, :n])
            top += 1
        else:
            add(stack[top - 1, :n], row)
        for _ in range(carries[r] - 1):
            top -= 1
            add(stack[top - 1, :n], stack[top, :n])
    return stack[0, :n]


@kernel
def ordered_sum(rows: Array, first: int, carries: Array, stack: Array, total: Array) -> None:
    """total = the sum of `rows` from column `first` on, along the tree; total: (n,)."""
    if carries.shape[0] == 2:  # needs no stack
        n = total.shape[0]
        sum_of_two(rows[0, first : first + n], rows[1, first : first + n], total)
        return
    for start in range(0, total.shape[0], BLOCK):
        stop = min(start + BLOCK, total.shape[0])
        copy(sum_block(rows, first + start, carries, stack, stop - start), total[start:stop])


@kernel
def add_ordered_sum(rows: Array, first: int, carries: Array, stack: Array, total: Array) -> None:
    """total += the sum of `rows` from column `first` on, along the tree; total: (n,)."""
    for start in range(0, total.shape[0], BLOCK):
        stop = min(start + BLOCK, total.shape[0])
        add(total[start:stop], sum_block(rows, first + start, carries, stack, stop - start))


@kernel
def running_mean(
    rows: Array, first: int, carries: Array, stack: Array, old: Array, new: Array, momentum: float
) -> None:
    """new = (1 - momentum) old + momentum s, with s the ordered sum."""
    weight = old.dtype.type(momentum)
    for start in range(0, old.shape[0], BLOCK):
        stop = min(start + BLOCK, old.shape[0])
        s = sum_block(rows, first + start, carries, stack, stop - start)
        p, q = old[start:stop], new[start:stop]
        for i in range(stop - start):
            q[i] = p[i] + weight * (s[i] - p[i])

"""The ordered sum of partial gradients, fused with the step of an optimiser.

`rows` (R, >= first + n) holds partial sums of the chunk in its columns from `first` on: rows as a whole and an
offset, because loops over a slice of a matrix are not vectorised. `carries` (R,) says how the rows are added: row after
row is pushed onto a stack, and after row r the two topmost are added carries[r] times, as a binary counter carries. So
the order of the additions is a property of the summation tree alone (`dist_relu.partition`). The sum is formed in
blocks that stay in the first-level cache; `stack` (>= depth, BLOCK) is their scratch memory.

All arrays of a call have one dtype. `old` and `new` are chunks of two generations and may not overlap, except
that they may be the same array.
"""

from __future__ import annotations

from math import sqrt

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import kernel

BLOCK = 1024


@kernel
def add(total: Array, term: Array) -> None:
    """total += term, both (n,)."""
    for i in range(total.shape[0]):
        total[i] += term[i]


@kernel
def _copy(source: Array, target: Array) -> None:
    for i in range(target.shape[0]):
        target[i] = source[i]


@kernel
def sum_block(rows: Array, start: int, carries: Array, stack: Array, n: int) -> Array:
    """The ordered sum of rows[:, start:start + n]; stands in stack[0]."""
    top = 0
    for r in range(carries.shape[0]):
        row = rows[r, start : start + n]
        if carries[r] == 0:
            _copy(row, stack[top, :n])
            top += 1
            continue
        add(stack[top - 1, :n], row)  # no need to push what is added at once
        for _ in range(carries[r] - 1):
            top -= 1
            add(stack[top - 1, :n], stack[top, :n])
    return stack[0, :n]


@kernel
def ordered_sum(rows: Array, first: int, carries: Array, stack: Array, total: Array) -> None:
    """total = the sum of `rows` from column `first` on, along the tree; total: (n,)."""
    for start in range(0, total.shape[0], BLOCK):
        stop = min(start + BLOCK, total.shape[0])
        _copy(sum_block(rows, first + start, carries, stack, stop - start), total[start:stop])


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


@kernel
def sgd(rows: Array, first: int, carries: Array, stack: Array, old: Array, new: Array, hyper: Array) -> None:
    """new = old - lr (g + decay old), with g the ordered sum.  hyper: (lr, decay, ...)."""
    lr, decay = hyper[0], hyper[1]
    for start in range(0, old.shape[0], BLOCK):
        stop = min(start + BLOCK, old.shape[0])
        g = sum_block(rows, first + start, carries, stack, stop - start)
        p, q = old[start:stop], new[start:stop]
        for i in range(stop - start):
            q[i] = p[i] - lr * (g[i] + decay * p[i])


@kernel
def momentum_sgd(
    rows: Array,
    first: int,
    carries: Array,
    stack: Array,
    old: Array,
    new: Array,
    old_velocity: Array,
    new_velocity: Array,
    hyper: Array,
) -> None:
    """Heavy-ball or Nesterov momentum as PyTorch writes them; hyper: (lr, decay, momentum, 1 if Nesterov).

    Polyak (1964); Sutskever et al. (2013), equations 1 to 4.
    """
    lr, decay, momentum, nesterov = hyper[0], hyper[1], hyper[2], hyper[3]
    for start in range(0, old.shape[0], BLOCK):
        stop = min(start + BLOCK, old.shape[0])
        g = sum_block(rows, first + start, carries, stack, stop - start)
        p, q = old[start:stop], new[start:stop]
        v, w = old_velocity[start:stop], new_velocity[start:stop]
        for i in range(stop - start):
            d = g[i] + decay * p[i]
            u = momentum * v[i] + d
            w[i] = u
            q[i] = p[i] - lr * (u + nesterov * (d + momentum * u - u))


@kernel
def adam(
    rows: Array,
    first: int,
    carries: Array,
    stack: Array,
    old: Array,
    new: Array,
    old_mean: Array,
    new_mean: Array,
    old_square: Array,
    new_square: Array,
    hyper: Array,
) -> None:
    """Adam and AdamW; the states are the running means of g and of g².

    hyper: (step size, beta1, 1 - beta1, beta2, 1 - beta2, scale of √square, epsilon, coupled decay,
    1 - decoupled decay).
    Kingma and Ba (2015), algorithm 1; Loshchilov and Hutter (2019), algorithm 2.
    """
    step, beta1, rest1, beta2, rest2 = hyper[0], hyper[1], hyper[2], hyper[3], hyper[4]
    scale, epsilon, coupled, keep = hyper[5], hyper[6], hyper[7], hyper[8]
    for start in range(0, old.shape[0], BLOCK):
        stop = min(start + BLOCK, old.shape[0])
        g = sum_block(rows, first + start, carries, stack, stop - start)
        p, q = old[start:stop], new[start:stop]
        m, s = old_mean[start:stop], old_square[start:stop]
        new_m, new_s = new_mean[start:stop], new_square[start:stop]
        for i in range(stop - start):
            d = g[i] + coupled * p[i]
            mean = beta1 * m[i] + rest1 * d
            square = beta2 * s[i] + rest2 * d * d
            new_m[i] = mean
            new_s[i] = square
            q[i] = keep * p[i] - step * mean / (scale * sqrt(square) + epsilon)


@kernel
def rmsprop(
    rows: Array,
    first: int,
    carries: Array,
    stack: Array,
    old: Array,
    new: Array,
    old_square: Array,
    new_square: Array,
    hyper: Array,
) -> None:
    """RMSprop as PyTorch writes it; the state is the running mean of g².

    hyper: (lr, decay, alpha, 1 - alpha, epsilon).  Tieleman and Hinton (2012), lecture 6e.
    """
    lr, decay, alpha, rest, epsilon = hyper[0], hyper[1], hyper[2], hyper[3], hyper[4]
    for start in range(0, old.shape[0], BLOCK):
        stop = min(start + BLOCK, old.shape[0])
        g = sum_block(rows, first + start, carries, stack, stop - start)
        p, q = old[start:stop], new[start:stop]
        s, new_s = old_square[start:stop], new_square[start:stop]
        for i in range(stop - start):
            d = g[i] + decay * p[i]
            square = alpha * s[i] + rest * d * d
            new_s[i] = square
            q[i] = p[i] - lr * d / (sqrt(square) + epsilon)


@kernel
def momentum_rmsprop(
    rows: Array,
    first: int,
    carries: Array,
    stack: Array,
    old: Array,
    new: Array,
    old_square: Array,
    new_square: Array,
    old_velocity: Array,
    new_velocity: Array,
    hyper: Array,
) -> None:
    """RMSprop with momentum on its steps; hyper: as for `rmsprop`, then the momentum."""
    lr, decay, alpha, rest, epsilon, momentum = hyper[0], hyper[1], hyper[2], hyper[3], hyper[4], hyper[5]
    for start in range(0, old.shape[0], BLOCK):
        stop = min(start + BLOCK, old.shape[0])
        g = sum_block(rows, first + start, carries, stack, stop - start)
        p, q = old[start:stop], new[start:stop]
        s, new_s = old_square[start:stop], new_square[start:stop]
        v, new_v = old_velocity[start:stop], new_velocity[start:stop]
        for i in range(stop - start):
            d = g[i] + decay * p[i]
            square = alpha * s[i] + rest * d * d
            u = momentum * v[i] + d / (sqrt(square) + epsilon)
            new_s[i] = square
            new_v[i] = u
            q[i] = p[i] - lr * u

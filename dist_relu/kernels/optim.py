"""The steps of update rules.

Those of elementwise rules are fused with the ordered sum of the gradient; how `rows`, `first`, `carries` and `stack`
make that up is told in `dist_relu.kernels.ordered_sum`. Rules that scale their steps by norms of whole parameters come
in two halves: what is measured, and what follows.

Vectors are flat, (n,), of one dtype, and don't overlap, except that `old` and `new` may be the same array.
"""

from __future__ import annotations

from math import sqrt

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import kernel
from dist_relu.kernels.ordered_sum import BLOCK, sum_block


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


@kernel
def lars(
    gradient: Array,
    old: Array,
    new: Array,
    old_velocity: Array,
    new_velocity: Array,
    rate: float,
    decay: float,
    momentum: float,
) -> None:
    """v = momentum v + rate (g + decay p); p = p - v.

    You et al. (2017), algorithm 1; `rate` is the product of global and local learning rate.
    """
    by, shrink, keep = old.dtype.type(rate), old.dtype.type(decay), old.dtype.type(momentum)
    for i in range(old.shape[0]):
        velocity = keep * old_velocity[i] + by * (gradient[i] + shrink * old[i])
        new_velocity[i] = velocity
        new[i] = old[i] - velocity


@kernel
def lamb_direction(
    gradient: Array,
    old: Array,
    old_mean: Array,
    new_mean: Array,
    old_square: Array,
    new_square: Array,
    decay: float,
    hyper: Array,
) -> None:
    """The states' running means of g and of g²; `gradient` becomes the direction of Adam's step, with decay.

    hyper: (1 / bias of the mean, beta1, 1 - beta1, beta2, 1 - beta2, scale of √square, epsilon).
    You et al. (2020), algorithm 2.
    """
    unbias, beta1, rest1, beta2, rest2 = hyper[0], hyper[1], hyper[2], hyper[3], hyper[4]
    rescale, epsilon, shrink = hyper[5], hyper[6], old.dtype.type(decay)
    for i in range(old.shape[0]):
        g = gradient[i]
        mean = beta1 * old_mean[i] + rest1 * g
        square = beta2 * old_square[i] + rest2 * g * g
        new_mean[i] = mean
        new_square[i] = square
        gradient[i] = unbias * mean / (rescale * sqrt(square) + epsilon) + shrink * old[i]


@kernel
def descend(direction: Array, old: Array, new: Array, rate: float) -> None:
    """new = old - rate direction."""
    by = old.dtype.type(rate)
    for i in range(old.shape[0]):
        new[i] = old[i] - by * direction[i]

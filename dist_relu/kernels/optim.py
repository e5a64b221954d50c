"""The two halves of steps that are scaled by norms of whole parameters: what is measured, and what follows.

All arrays are flat, (n,), of one dtype, and don't overlap, unless it is said.
"""

from __future__ import annotations

from math import sqrt

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import kernel


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

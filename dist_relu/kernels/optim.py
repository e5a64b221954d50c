"""The steps of update rules, compiled.

Elementwise rules are a table of functions of numbers: the new parameter and states from the gradient, the old ones and
the hyperparameters. The loops around them are written once for each number of states, and fused with the ordered sum
of the gradient; what `rows`, `first`, `carries` and `stack` are is told in `dist_relu.kernels.ordered_sum`. Rules that
scale their steps by norms of whole parameters come in two halves: what is measured, and what follows.

Vectors are flat, (n,), of one dtype, and don't overlap, except that `old` and `new` may be the same array.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from math import sqrt
from typing import Any

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import kernel, scalar, specialise
from dist_relu.kernels.llvm import leading
from dist_relu.kernels.ordered_sum import BLOCK, sum_block

# What stands for a rule in the loops below. They form the sum before they slice vectors: the references of slices that
# live while something is called are counted, which costs as much as a few vectors of numbers.


def hyperparameters(hyper: Array) -> tuple[float, ...]:
    """Return those that the rule takes, which are the first ones."""
    raise NotImplementedError


def step(g: float, p: float, *numbers: float) -> Any:
    """Compute the new parameter, or that and the new states, from the gradient, the old ones and hyperparameters."""
    raise NotImplementedError


def step_without_state(
    rows: Array, first: int, carries: Array, stack: Array, old: Array, new: Array, hyper: Array
) -> None:
    """new = step(g, old, *hyper), with g the ordered sum."""
    numbers = hyperparameters(hyper)
    for start in range(0, old.shape[0], BLOCK):
        stop = min(start + BLOCK, old.shape[0])
        g = sum_block(rows, first + start, carries, stack, stop - start)
        p, q = old[start:stop], new[start:stop]
        for i in range(stop - start):
            q[i] = step(g[i], p[i], *numbers)


def step_with_one_state(
    rows: Array,
    first: int,
    carries: Array,
    stack: Array,
    old: Array,
    new: Array,
    old_state: Array,
    new_state: Array,
    hyper: Array,
) -> None:
    """new, new_state = step(g, old, old_state, *hyper), with g the ordered sum."""
    numbers = hyperparameters(hyper)
    for start in range(0, old.shape[0], BLOCK):
        stop = min(start + BLOCK, old.shape[0])
        g = sum_block(rows, first + start, carries, stack, stop - start)
        p, q = old[start:stop], new[start:stop]
        s, t = old_state[start:stop], new_state[start:stop]
        for i in range(stop - start):
            q[i], t[i] = step(g[i], p[i], s[i], *numbers)


def step_with_two_states(
    rows: Array,
    first: int,
    carries: Array,
    stack: Array,
    old: Array,
    new: Array,
    old_state: Array,
    new_state: Array,
    old_second: Array,
    new_second: Array,
    hyper: Array,
) -> None:
    """new, new_state, new_second = step(g, old, old_state, old_second, *hyper), with g the ordered sum."""
    numbers = hyperparameters(hyper)
    for start in range(0, old.shape[0], BLOCK):
        stop = min(start + BLOCK, old.shape[0])
        g = sum_block(rows, first + start, carries, stack, stop - start)
        p, q = old[start:stop], new[start:stop]
        s, t = old_state[start:stop], new_state[start:stop]
        u, v = old_second[start:stop], new_second[start:stop]
        for i in range(stop - start):
            q[i], t[i], v[i] = step(g[i], p[i], s[i], u[i], *numbers)


def rule(*, num_states: int) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Make the kernel of a rule: a function of g, p, its states, and its hyperparameters in the order of `hyper`."""
    loop = (step_without_state, step_with_one_state, step_with_two_states)[num_states]

    def make(step: Callable[..., Any]) -> Callable[..., None]:
        num_hyper = len(inspect.signature(step).parameters) - 2 - num_states
        return specialise(loop, step.__name__, {"step": scalar(step), "hyperparameters": leading(num_hyper)})

    return make


@rule(num_states=0)
def sgd(g: float, p: float, lr: float, decay: float) -> float:
    """Gradient descent: p - lr (g + decay p)."""
    return p - lr * (g + decay * p)


@rule(num_states=1)
def momentum_sgd(
    g: float, p: float, velocity: float, lr: float, decay: float, momentum: float, nesterov: float
) -> tuple[float, float]:
    """Heavy-ball or Nesterov momentum as PyTorch writes them; nesterov: 1 or 0.

    Polyak (1964); Sutskever et al. (2013), equations 1 to 4.
    """
    d = g + decay * p
    u = momentum * velocity + d
    return p - lr * (u + nesterov * (d + momentum * u - u)), u


@rule(num_states=2)
def adam(
    g: float,
    p: float,
    mean: float,
    square: float,
    step: float,
    beta1: float,
    rest1: float,
    beta2: float,
    rest2: float,
    scale: float,
    epsilon: float,
    coupled: float,
    keep: float,
) -> tuple[float, float, float]:
    """Adam and AdamW; the states are the running means of g and of g².

    step: its size, free of the mean's bias.  rest1, rest2: 1 - beta.  scale: of √square, for its bias.  coupled: weight
    decay that is added to g.  keep: 1 less the decoupled one.
    Kingma and Ba (2015), algorithm 1; Loshchilov and Hutter (2019), algorithm 2.
    """
    d = g + coupled * p
    mean = beta1 * mean + rest1 * d
    square = beta2 * square + rest2 * d * d
    return keep * p - step * mean / (scale * sqrt(square) + epsilon), mean, square


@rule(num_states=1)
def rmsprop(
    g: float, p: float, square: float, lr: float, decay: float, alpha: float, rest: float, epsilon: float
) -> tuple[float, float]:
    """RMSprop as PyTorch writes it; the state is the running mean of g².  rest: 1 - alpha.

    Tieleman and Hinton (2012), lecture 6e.
    """
    d = g + decay * p
    square = alpha * square + rest * d * d
    return p - lr * d / (sqrt(square) + epsilon), square


@rule(num_states=2)
def momentum_rmsprop(
    g: float,
    p: float,
    square: float,
    velocity: float,
    lr: float,
    decay: float,
    alpha: float,
    rest: float,
    epsilon: float,
    momentum: float,
) -> tuple[float, float, float]:
    """RMSprop with momentum on its steps; all else as for `rmsprop`."""
    d = g + decay * p
    square = alpha * square + rest * d * d
    u = momentum * velocity + d / (sqrt(square) + epsilon)
    return p - lr * u, square, u


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
    """Take g and g² into the states' running means; `gradient` becomes the direction of Adam's step, with decay.

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

"""Distributions of actions, what actions were worth, and what a policy loses by them.

`N` states or samples, `A` actions or dimensions of an action, `E` environments, `T` steps of each. The last column of
a policy's outputs is the value of the state, which distributions hand on untouched. Sums are taken in float64.

sums: (2,) float64, the sum of the losses and a number of correct predictions, which is 0.
"""

from __future__ import annotations

import math
from math import log, log1p, pi

from dist_relu.core.arrays import Array
from dist_relu.kernels.elementary import exp
from dist_relu.kernels.jit import kernel
from dist_relu.kernels.long_sums import pairwise_sum

_HALF_LOG_2PI = 0.5 * log(2 * pi)
_LOG_2 = log(2.0)


@kernel
def log_probabilities(x: Array, y: Array) -> None:
    """y = x - ln Σ exp(x) over every row but for its last column, which is copied; both (N, A + 1), y not x."""
    num_actions = x.shape[1] - 1
    for n in range(x.shape[0]):
        largest = x[n, 0]
        for a in range(1, num_actions):
            largest = max(largest, x[n, a])
        total = 0.0
        for a in range(num_actions):
            total += exp(x[n, a] - largest)
        log_total = x.dtype.type(log(total))
        for a in range(num_actions):
            y[n, a] = x[n, a] - largest - log_total
        y[n, num_actions] = x[n, num_actions]


@kernel
def log_probabilities_backward(dy: Array, y: Array) -> None:
    """dy = dy - exp(y) Σ dy over every row but for its last column, in place; both (N, A + 1)."""
    num_actions = y.shape[1] - 1
    for n in range(y.shape[0]):
        total = 0.0
        for a in range(num_actions):
            total += dy[n, a]
        for a in range(num_actions):
            dy[n, a] -= exp(y[n, a]) * total


@kernel
def draw_category(y: Array, uniform: Array, actions: Array) -> None:
    """actions = numbers of actions, drawn with the probabilities exp(y).

    y: (N, A + 1).  uniform: (N, 1), from [0, 1).  actions: (N, 1).
    """
    for n in range(y.shape[0]):
        left = float(uniform[n, 0])
        action = 0
        while action < y.shape[1] - 2:
            left -= exp(y[n, action])
            if left < 0:
                break
            action += 1
        actions[n, 0] = action


@kernel
def likeliest_category(y: Array, actions: Array) -> None:
    """actions = the number of the most probable action, the first of equals; y: (N, A + 1), actions: (N, 1)."""
    for n in range(y.shape[0]):
        best = 0
        for a in range(1, y.shape[1] - 1):
            if y[n, a] > y[n, best]:
                best = a
        actions[n, 0] = best


@kernel
def category_log_probs(y: Array, actions: Array, log_probs: Array, entropies: Array) -> None:
    """Compute of each state the logarithm of the probability of the action taken, and the entropy -Σ p ln p.

    y: (N, A + 1), logarithms of probabilities.  actions: (N, 1).  log_probs, entropies: (N,).
    """
    for n in range(y.shape[0]):
        entropy = 0.0
        for a in range(y.shape[1] - 1):
            entropy -= exp(y[n, a]) * y[n, a]
        log_probs[n] = y[n, int(actions[n, 0])]
        entropies[n] = entropy


@kernel
def category_log_probs_backward(y: Array, actions: Array, d_log_probs: Array, d_entropies: Array, dy: Array) -> None:
    """dy = the gradient of y, but for the last column, from those of `category_log_probs`."""
    for n in range(y.shape[0]):
        for a in range(y.shape[1] - 1):
            dy[n, a] = -d_entropies[n] * exp(y[n, a]) * (y[n, a] + 1)
        dy[n, int(actions[n, 0])] += d_log_probs[n]


@kernel
def bound_columns(x: Array, first: int, stop: int, lowest: float, highest: float, y: Array) -> None:
    """y = x, with the columns from `first` to `stop` at least `lowest` and at most `highest`; both (N, K)."""
    for n in range(x.shape[0]):
        for k in range(x.shape[1]):
            y[n, k] = x[n, k]
        for k in range(first, stop):
            y[n, k] = min(max(x[n, k], lowest), highest)


@kernel
def bound_columns_backward(dy: Array, x: Array, first: int, stop: int, lowest: float, highest: float) -> None:
    """dy = the gradient of x from that of y, in place: 0 where x was out of bounds."""
    for n in range(x.shape[0]):
        for k in range(first, stop):
            if x[n, k] < lowest or x[n, k] > highest:
                dy[n, k] = 0


@kernel
def draw_normal(y: Array, normal: Array, actions: Array) -> None:
    """actions = mean + exp(log std) · normal.  y: (N, 2A + 1): means, logarithms, value.  normal, actions: (N, A)."""
    size = actions.shape[1]
    for n in range(y.shape[0]):
        for a in range(size):
            actions[n, a] = y[n, a] + exp(y[n, size + a]) * normal[n, a]


@kernel
def tanh_normal_log_probs(y: Array, actions: Array, log_probs: Array, entropies: Array) -> None:
    """Compute of each state the logarithm of the density of tanh(action), and the entropy before tanh.

    y: (N, 2A + 1).  actions: (N, A), before tanh.  log_probs, entropies: (N,).  Haarnoja et al. (2018), appendix C,
    equation 21, with ln(1 - tanh² u) = 2 (ln 2 - u - ln(1 + exp(-2u))), which loses no digits where tanh is flat.
    """
    size = actions.shape[1]
    for n in range(y.shape[0]):
        log_prob, entropy = 0.0, 0.0
        for a in range(size):
            u, log_std = float(actions[n, a]), float(y[n, size + a])
            z = (u - y[n, a]) / exp(log_std)
            softplus = max(-2 * u, 0.0) + log1p(exp(-abs(2 * u)))
            log_prob -= 0.5 * z * z + log_std + _HALF_LOG_2PI + 2 * (_LOG_2 - u - softplus)
            entropy += log_std + _HALF_LOG_2PI + 0.5
        log_probs[n] = log_prob
        entropies[n] = entropy


@kernel
def tanh_normal_log_probs_backward(y: Array, actions: Array, d_log_probs: Array, d_entropies: Array, dy: Array) -> None:
    """dy = the gradient of y, but for the last column, from those of `tanh_normal_log_probs`."""
    size = actions.shape[1]
    for n in range(y.shape[0]):
        for a in range(size):
            std = exp(float(y[n, size + a]))
            z = (actions[n, a] - y[n, a]) / std
            dy[n, a] = d_log_probs[n] * z / std
            dy[n, size + a] = d_log_probs[n] * (z * z - 1) + d_entropies[n]


@kernel
def advantages(
    rewards: Array, values: Array, next_values: Array, ended: Array, gamma: float, lam: float, out: Array
) -> None:
    """out = generalised advantage estimates.  Schulman et al. (2016), equation 16.

    All (E, T).  values: of the states.  next_values: of the states that the steps led to, before any reset; 0 where
    there is no future.  ended: whether an episode ended with the step.
    """
    for e in range(rewards.shape[0]):
        advantage = 0.0
        for t in range(rewards.shape[1] - 1, -1, -1):
            if ended[e, t]:
                advantage = 0.0
            advantage = rewards[e, t] + gamma * next_values[e, t] - values[e, t] + gamma * lam * advantage
            out[e, t] = advantage


@kernel
def clipped_surrogate(
    log_probs: Array, old: Array, advantages: Array, clip: float, scale: float, d_log_probs: Array, sums: Array
) -> None:
    """sums = -min(ratio · advantage, clip(ratio, 1 - clip, 1 + clip) · advantage).  Schulman et al. (2017), equation 7.

    log_probs, old: of the action taken, now and when it was taken; the ratio is that of the probabilities.  All (N,).
    d_log_probs: gets the gradient of the sum times `scale`.
    """
    loss = 0.0
    for n in range(log_probs.shape[0]):
        ratio = math.exp(log_probs[n] - old[n])
        plain = ratio * advantages[n]
        clipped = min(max(ratio, 1 - clip), 1 + clip) * advantages[n]
        loss -= min(plain, clipped)
        d_log_probs[n] = scale * (-plain if plain <= clipped else 0.0)
    sums[0], sums[1] = loss, 0


@kernel
def score(log_probs: Array, advantages: Array, scale: float, d_log_probs: Array, sums: Array) -> None:
    """sums = -advantage · log_prob; the others (N,), d_log_probs gets the gradient of the sum times `scale`.

    Williams (1992), theorem 1.
    """
    loss = 0.0
    for n in range(log_probs.shape[0]):
        loss -= advantages[n] * log_probs[n]
        d_log_probs[n] = scale * -advantages[n]
    sums[0], sums[1] = loss, 0


@kernel
def entropy_bonus(entropies: Array, weight: float, scale: float, d_entropies: Array, sums: Array) -> None:
    """sums -= weight · entropy; d_entropies gets the gradient of the sum times `scale`.  Both (N,)."""
    sums[0] -= weight * pairwise_sum(entropies)
    for n in range(d_entropies.shape[0]):
        d_entropies[n] = -weight * scale


@kernel
def value_error(outputs: Array, returns: Array, weight: float, scale: float, d_outputs: Array, sums: Array) -> None:
    """sums += weight · (value - return)² / 2, where the value is the last column of outputs (N, K); returns: (N,).

    d_outputs: the last column gets the gradient of the sum times `scale`.
    """
    loss, last = 0.0, outputs.shape[1] - 1
    for n in range(outputs.shape[0]):
        difference = outputs[n, last] - returns[n]
        loss += 0.5 * difference * difference
        d_outputs[n, last] = weight * scale * difference
    sums[0] += weight * loss

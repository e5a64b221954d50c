"""What actions were worth, and what a policy loses by them.

`E` environments, `T` steps of each, `N` samples.
"""

from __future__ import annotations

from math import exp

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import kernel


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
def clipped_surrogate(log_probs: Array, old: Array, advantages: Array, clip: float, d_log_probs: Array) -> float:
    """Sum of -min(ratio · advantage, clip(ratio, 1 - clip, 1 + clip) · advantage).  Schulman et al. (2017), equation 7.

    log_probs, old: of the action taken, now and when it was taken; the ratio is that of the probabilities.  All (N,).
    d_log_probs: gets the gradient.
    """
    loss = 0.0
    for n in range(log_probs.shape[0]):
        ratio = exp(log_probs[n] - old[n])
        plain = ratio * advantages[n]
        clipped = min(max(ratio, 1 - clip), 1 + clip) * advantages[n]
        loss -= min(plain, clipped)
        d_log_probs[n] = -plain if plain <= clipped else 0.0
    return loss


@kernel
def score(log_probs: Array, advantages: Array, d_log_probs: Array) -> float:
    """Sum of -advantage · log_prob; all (N,), d_log_probs gets the gradient.  Williams (1992), theorem 1."""
    loss = 0.0
    for n in range(log_probs.shape[0]):
        loss -= advantages[n] * log_probs[n]
        d_log_probs[n] = -advantages[n]
    return loss


@kernel
def value_error(outputs: Array, returns: Array, weight: float, d_outputs: Array) -> float:
    """Sum of (value - return)² / 2, where the value is the last column of outputs (N, K); returns: (N,).

    d_outputs: the last column gets the gradient of the sum times `weight`.
    """
    loss, last = 0.0, outputs.shape[1] - 1
    for n in range(outputs.shape[0]):
        difference = outputs[n, last] - returns[n]
        loss += 0.5 * difference * difference
        d_outputs[n, last] = weight * difference
    return loss

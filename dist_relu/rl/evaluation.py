"""What a policy comes to in fresh episodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dist_relu.coordinator import Coordinator
from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_int, check_is, check_seed
from dist_relu.engine.arguments import check_has_parameters
from dist_relu.errors import DataError
from dist_relu.nn import PlainPass, Sequential
from dist_relu.partition import bounds
from dist_relu.rl.environments import Env, Environments, Spaces, fresh_seed, head_of, name_of
from dist_relu.runtime.world import World

_AT_ONCE = 32
"""Environments of a worker that are open at the same time."""


def evaluate(
    coordinator: Coordinator,
    model: Sequential,
    env: Env,
    *,
    episodes: int = 100,
    seed: int = 0,
    max_steps: int = 100_000,
) -> Array:
    """The returns of fresh episodes, (episodes,) float64, where the likeliest action is always taken; collective.

    Each episode has an environment of its own, started from a seed that follows from `seed` and its number, and that
    training never uses; so returns do not depend on the number of workers.

    max_steps: of an episode.  Raises DataError when one has not ended by then.
    """
    check_is("coordinator", coordinator, Coordinator)
    episodes, max_steps, seed = check_int("episodes", episodes), check_int("max_steps", max_steps), check_seed(seed)
    check_has_parameters(model)
    spaces = Spaces.of(env)
    spaces.check(model, env)
    request = _Request(
        model=model.blueprint(),
        state_dim=spaces.state_dim,
        values=model.values,
        env=env,
        episodes=episodes,
        max_steps=max_steps,
        seed=seed,
    )
    return np.concatenate(coordinator.survive(lambda: coordinator.run(_play_mine, request)))


@dataclass(frozen=True, kw_only=True)
class _Request:
    """values: (P,), the parameters of `model`."""

    model: Sequential
    state_dim: int
    values: Array
    env: Env
    episodes: int
    max_steps: int
    seed: int


def _play_mine(world: World, request: _Request) -> Array:
    """Play this worker's episodes, and return their returns."""
    model = request.model.build((request.state_dim,))
    model.bind(request.values)
    first, stop = bounds(request.episodes, world.size)[world.rank]
    returns = np.zeros(stop - first)
    for start in range(first, stop, _AT_ONCE):
        numbers = range(start, min(start + _AT_ONCE, stop))
        seeds = [fresh_seed(request.seed, number) for number in numbers]
        with Environments(request.env, seeds, model.dtype) as environments:
            _play(world, request, model, environments, returns[start - first : numbers.stop - first])
    return returns


def _play(world: World, request: _Request, model: Sequential, environments: Environments, returns: Array) -> None:
    """Play one episode in each environment; returns: (E,) of zeros, gets what they come to."""
    head, run = head_of(model), PlainPass()
    actions = np.empty((len(returns), head.action_width), model.dtype)
    reward = np.empty(len(returns))
    playing = np.ones(len(returns), bool)
    for _ in range(request.max_steps):
        world.barrier.check()
        head.best(model.forward(environments.states, run), actions)
        ended = environments.step(head.chosen(actions), reward)
        returns[playing] += reward[playing]
        for number, _ in ended:
            playing[number] = False
        if not playing.any():
            return
    raise DataError(
        f"{name_of(request.env)}: an episode has not ended in {request.max_steps:,} steps. Pass more max_steps, or "
        "give the environment a limit: gymnasium.make(..., max_episode_steps=...)."
    )

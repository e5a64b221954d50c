"""Policies learn with the same bits wherever their environments run."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

import dist_relu as dr
from dist_relu import rl

SHARDS = 4


def short_pendulum() -> Any:
    """Its episodes are only ever cut short."""
    return gymnasium.make("Pendulum-v1", max_episode_steps=10)


def short_cartpole() -> Any:
    """Its episodes end by themselves or are cut short."""
    return gymnasium.make("CartPole-v1", max_episode_steps=20)


class Fragile(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment that fails after a while."""

    def __init__(self) -> None:
        super().__init__(gymnasium.make("CartPole-v1"))
        self._left = 40

    def step(self, action: Any) -> Any:
        self._left -= 1
        if not self._left:
            raise ZeroDivisionError("the pole broke")
        return self.env.step(action)


ALGORITHMS = [
    pytest.param(rl.PPO(horizon=16, epochs=2, minibatches=2), id="PPO"),
    pytest.param(rl.REINFORCE(horizon=16), id="REINFORCE"),
]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("env", [short_cartpole, short_pendulum])
def test_learning_gives_the_same_bits_on_any_number_of_workers(
    coordinator: dr.Coordinator, env: rl.Env, algorithm: rl.Algorithm
) -> None:
    def learn(on: dr.Coordinator) -> rl.LearningResult:
        return rl.train(on, env, algorithm, steps=5 * 8 * 16, num_envs=8, shards=SHARDS, seed=3)

    result = learn(coordinator)
    with dr.start(backend="serial") as serial:
        expected = learn(serial)
    assert result.digest == expected.digest
    np.testing.assert_array_equal(result.mean_returns, expected.mean_returns)
    np.testing.assert_array_equal(result.num_episodes, expected.num_episodes)
    np.testing.assert_array_equal(result.losses, expected.losses)
    assert result.num_steps == 5 * 8 * 16
    assert result.num_episodes.sum() > 0


@pytest.mark.parametrize("env", ["CartPole-v1", short_pendulum])
def test_fresh_episodes_come_to_the_same_on_any_number_of_workers(coordinator: dr.Coordinator, env: rl.Env) -> None:
    model = rl.policy_for(env).initialize(1)
    returns = rl.evaluate(coordinator, model, env, episodes=9, seed=5)
    with dr.start(backend="serial") as serial:
        np.testing.assert_array_equal(returns, rl.evaluate(serial, model, env, episodes=9, seed=5))
        others = rl.evaluate(serial, model, env, episodes=9, seed=6)
    assert returns.shape == (9,)
    assert (returns != others).any()


def test_an_environment_that_fails_is_an_error_and_leaves_the_workers_usable(coordinator: dr.Coordinator) -> None:
    with pytest.raises(ZeroDivisionError, match="the pole broke"):
        rl.train(coordinator, Fragile, steps=10_000, num_envs=4, shards=SHARDS)
    assert rl.train(coordinator, "CartPole-v1", steps=1, num_envs=4, shards=SHARDS).num_steps == 4 * 128


def test_what_does_not_fit_together_is_refused(coordinator: dr.Coordinator) -> None:
    with pytest.raises(dr.PartitionError, match=r"6 environments can't be shared evenly by 4 shards"):
        rl.train(coordinator, "CartPole-v1", steps=1, num_envs=6, shards=SHARDS)
    with pytest.raises(dr.PartitionError, match=r"The 7 samples of a shard can't be cut into 8 equal minibatches"):
        rl.train(coordinator, "CartPole-v1", rl.PPO(horizon=7), steps=1, num_envs=4, shards=SHARDS)
    with pytest.raises(ValueError, match=r"CartPole-v1 needs a policy for states of shape \(4,\)"):
        rl.evaluate(coordinator, dr.nn.policy(3, 2).initialize(), "CartPole-v1")
    with pytest.raises(ValueError, match=r"The model is no policy"):
        rl.train(coordinator, "CartPole-v1", steps=1, model=dr.nn.mlp([8], 3), num_envs=4, shards=SHARDS)

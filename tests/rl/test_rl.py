"""Reinforcement learning: its mathematics, what it reaches, and policies as functions of plain NumPy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn, rl
from dist_relu.kernels import policy as kernels
from dist_relu.rl.environments import Environments, Spaces
from tests.digests import LEARNING
from tests.gradients import check_backward
from tests.twin import Array

HEADS = [
    pytest.param(nn.Categorical(3), id="softmax"),
    pytest.param(nn.TanhGaussian((-2.0, 0.0), (2.0, 1.0)), id="tanh-gaussian"),
]


def drawn(head: nn.PolicyHead, outputs: Array, rng: np.random.Generator) -> Array:
    actions = np.empty((len(outputs), head.action_width))
    head.draw(outputs, head.noise((len(outputs),), rng), actions)
    return actions


def outputs_of(head: nn.PolicyHead, num: int, rng: np.random.Generator) -> Array:
    head.build((head.inputs,))
    return head.forward(rng.standard_normal((num, head.inputs)))


def test_advantages_are_sums_of_discounted_errors_up_to_the_end_of_the_episode(rng: np.random.Generator) -> None:
    rewards, values, next_values, out = rng.standard_normal((4, 3, 20))
    ended = rng.random((3, 20)) < 0.2
    gamma, lam = 0.9, 0.8
    kernels.advantages(rewards, values, next_values, ended, gamma, lam, out)
    for e in range(3):
        for t in range(20):
            expected, factor = 0.0, 1.0
            for k in range(t, 20):
                expected += factor * (rewards[e, k] + gamma * next_values[e, k] - values[e, k])
                factor *= gamma * lam
                if ended[e, k]:
                    break
            assert out[e, t] == pytest.approx(expected)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("clip", [0.2, None])
def test_losses_have_the_gradients_of_finite_differences(
    head: nn.PolicyHead, clip: float | None, rng: np.random.Generator
) -> None:
    outputs = outputs_of(head, 40, rng)
    actions = drawn(head, outputs, rng)
    old = np.empty(40)
    head.log_probs(outputs, actions, old, np.empty(40))
    old += rng.normal(0, 0.3, 40)
    targets = np.column_stack([actions, old, rng.standard_normal((40, 2))])
    loss = rl.PolicyLoss(head, clip, value_weight=0.5, entropy_weight=0.1)
    d_outputs, unused = np.empty_like(outputs), np.empty_like(outputs)
    loss.backward(outputs, targets, 0.25, d_outputs)
    for _ in range(10):
        direction = rng.standard_normal(outputs.shape)
        above, below = (loss.backward(outputs + e * direction, targets, 1.0, unused)[0] for e in (1e-6, -1e-6))
        assert (d_outputs * direction).sum() == pytest.approx(0.25 * (above - below) / 2e-6, rel=1e-5)


def test_clipping_stops_what_has_moved_far_enough_and_nothing_else() -> None:
    ratios = np.array([1.5, 0.5, 1.5, 0.5, 1.1])
    advantages = np.array([1.0, 1.0, -1.0, -1.0, 1.0])
    slope, sums = np.empty(5), np.empty(2)
    kernels.clipped_surrogate(np.log(ratios), np.zeros(5), advantages, 0.2, 1.0, slope, sums)
    np.testing.assert_allclose(slope, [0, -0.5, 1.5, 0, -1.1])
    assert sums[0] == pytest.approx(-(1.2 + 0.5 - 1.5 - 0.8 + 1.1))


def test_the_first_step_of_ppo_is_that_of_reinforce(rng: np.random.Generator) -> None:
    head = nn.Categorical(4)
    outputs = outputs_of(head, 30, rng)
    actions = drawn(head, outputs, rng)
    old = np.empty(30)
    head.log_probs(outputs, actions, old, np.empty(30))
    targets = np.column_stack([actions, old, rng.standard_normal((30, 2))])
    first, second = np.empty_like(outputs), np.empty_like(outputs)
    rl.PPO(entropy_weight=0.01).loss(head).backward(outputs, targets, 1.0, first)
    rl.REINFORCE(entropy_weight=0.01).loss(head).backward(outputs, targets, 1.0, second)
    np.testing.assert_allclose(first, second, rtol=1e-12)


@pytest.mark.parametrize("head", ["softmax", "tanh-gaussian"])
def test_policies_have_the_gradients_of_finite_differences(head: Any, rng: np.random.Generator) -> None:
    model = nn.policy(5, 3, [8, 7], head, dtype="float64").initialize(2)
    assert model.output_shape == ((4,) if head == "softmax" else (7,))
    check_backward(model, rng.standard_normal((6, 5)), rng)


def test_actions_are_drawn_with_their_probabilities(rng: np.random.Generator) -> None:
    head = nn.Categorical(3)
    outputs = np.repeat(np.log([[0.1, 0.6, 0.3, 1.0]]), 100_000, axis=0)
    actions = drawn(head, outputs, rng)
    np.testing.assert_allclose(np.bincount(actions[:, 0].astype(int)) / 1e5, [0.1, 0.6, 0.3], atol=0.01)
    log_probs, entropies = np.empty((2, len(actions)))
    head.log_probs(outputs, actions, log_probs, entropies)
    np.testing.assert_allclose(np.exp(log_probs), np.array([0.1, 0.6, 0.3])[actions[:, 0].astype(int)])
    assert entropies[0] == pytest.approx(-0.1 * np.log(0.1) - 0.6 * np.log(0.6) - 0.3 * np.log(0.3))


def test_the_density_of_tanh_gaussian_actions_is_one(rng: np.random.Generator) -> None:
    head = nn.TanhGaussian((-1.0,), (1.0,))
    actions = np.linspace(-1, 1, 200_001)[1:-1]
    outputs = np.repeat([[0.3, np.log(0.7), 0.0]], len(actions), axis=0)
    log_probs, entropies = np.empty((2, len(actions)))
    head.log_probs(outputs, np.arctanh(actions)[:, None], log_probs, entropies)
    assert np.exp(log_probs).sum() * 1e-5 == pytest.approx(1, rel=1e-6)
    assert entropies[0] == pytest.approx(np.log(0.7) + 0.5 * np.log(2 * np.pi * np.e))
    sample = head.chosen(drawn(head, outputs, rng))
    expected = (np.exp(log_probs) * actions).sum() * 1e-5
    assert sample.mean() == pytest.approx(expected, abs=0.01)


def test_tanh_gaussian_actions_stay_within_their_bounds(rng: np.random.Generator) -> None:
    head = nn.TanhGaussian((-2.0, 0.0), (2.0, 1.0))
    actions = head.chosen(rng.normal(0, 100, (1000, 2)))
    assert actions.dtype == np.float32
    assert (actions.min(axis=0) == [-2, 0]).all()
    assert (actions.max(axis=0) == [2, 1]).all()


def test_an_episode_that_is_cut_short_tells_its_last_state_and_one_that_is_over_does_not() -> None:
    def short() -> Any:
        return gymnasium.make("CartPole-v1", max_episode_steps=3)

    actions, rewards = np.zeros(2, int), np.empty(2)
    with Environments(short, [1, 2], np.dtype(np.float32)) as environments:
        began = environments.states.copy()
        assert environments.step(actions, rewards) == environments.step(actions, rewards) == []
        ended = environments.step(actions, rewards)
        assert [number for number, _ in ended] == [0, 1]
        for number, last_state in ended:
            assert last_state is not None
            assert (last_state != environments.states[number]).any()
        assert (environments.states != began).any()
    with Environments("CartPole-v1", [1], np.dtype(np.float32)) as environments:
        ended = []
        while not ended:
            ended = environments.step(actions[:1], rewards[:1])
    assert ended == [(0, None)]


class Counted(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Counts the environments that are open."""

    num_open = 0

    def __init__(self) -> None:
        super().__init__(gymnasium.make("CartPole-v1"))
        Counted.num_open += 1
        self._left = 300

    def step(self, action: Any) -> Any:
        self._left -= 1
        if not self._left:
            raise ZeroDivisionError
        return self.env.step(action)

    def close(self) -> None:
        Counted.num_open -= 1
        super().close()


def test_environments_are_closed_however_learning_ends() -> None:
    with dr.start(backend="serial") as coordinator:
        result = rl.train(coordinator, Counted, steps=128, num_envs=2)
        rl.evaluate(coordinator, result.model, Counted, episodes=2)
        assert Counted.num_open == 0
        with pytest.raises(ZeroDivisionError):
            rl.train(coordinator, Counted, steps=1000, num_envs=2)
    assert Counted.num_open == 0


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("CartPole-v7", "There is no environment 'CartPole-v7' here"),
        ("nowhere:CartPole-v1", "There is no environment 'nowhere:CartPole-v1' here"),
        ("FrozenLake-v1", r"FrozenLake-v1 shows Discrete\(16\); policies take states in a Box of one dimension"),
    ],
)
def test_environments_that_policies_do_not_suit_are_refused(env: str, message: str) -> None:
    with pytest.raises(dr.DataError, match=message):
        Spaces.of(env)


def test_learning_ends_with_the_bits_that_it_has_always_ended_with() -> None:
    with dr.start(backend="serial") as coordinator:
        assert LEARNING.digest_on(coordinator) == LEARNING.digest


@pytest.mark.long
def test_cartpole_is_learned() -> None:
    with dr.start(backend="serial") as coordinator:
        result = rl.train(coordinator, "CartPole-v1", steps=60_000, shards=2, seed=0)
        assert rl.evaluate(coordinator, result.model, "CartPole-v1", seed=0).mean() >= 475
    assert result.mean_returns[0] < 30


def test_learning_goes_on_from_the_parameters_that_a_policy_has() -> None:
    with dr.start(backend="serial") as coordinator:
        first = rl.train(coordinator, "CartPole-v1", steps=1)
        before = first.digest
        second = rl.train(coordinator, "CartPole-v1", rl.REINFORCE(), steps=1, model=first.model)
    assert second.model is first.model
    assert second.digest != before


@pytest.mark.parametrize("lr", [1e30, 1e38])
def test_a_loss_that_is_no_number_stops_learning_and_leaves_numbers(lr: float) -> None:
    model = rl.policy_for("CartPole-v1")
    with dr.start(backend="serial") as coordinator, pytest.raises(dr.TrainingDiverged, match=r"in iteration \d"):
        rl.train(coordinator, "CartPole-v1", rl.PPO(lr=lr), steps=10_000, model=model)
    assert np.isfinite(model.values).all()


class Counting(gymnasium.Env[Any, Any]):
    """Its state counts the steps of an episode, each with a reward of its own.

    The first episode is over after 3 steps, the second is cut short after 2, and the third goes on.
    """

    observation_space = gymnasium.spaces.Box(0, 100, (1,))
    action_space = gymnasium.spaces.Discrete(2)
    rewards = 1.0, 2.0, 4.0, 8.0, 16.0

    def __init__(self) -> None:
        self._episode = 0

    def reset(self, **_: Any) -> Any:
        self._episode += 1
        self._state = 0
        return np.array([0.0]), {}

    def step(self, action: Any) -> Any:
        reward = self.rewards[self._state]
        self._state += 1
        place = self._episode, self._state
        return np.array([float(self._state)]), reward, place == (1, 3), place == (2, 2), {}


def test_returns_count_what_the_last_state_is_worth_unless_the_episode_is_over() -> None:
    def worth(state: int) -> float:
        return 10 + state

    model = nn.Sequential(nn.Parallel([[nn.Dense(2)], [nn.Dense(1)]]), nn.Categorical(2)).build((1,)).initialize()
    for param in model.params:
        param.value[...] = 0  # actions that are equally likely leave the value's error alone in the loss
    weight, bias = model.params[2:]
    weight.value[...], bias.value[...] = 1, 10
    gamma = 0.5
    errors = []
    for num_steps, end in (3, 0.0), (2, worth(2)), (3, worth(3)):  # learning comes when the third is in its state 3
        for state in range(num_steps):
            rewards = Counting.rewards[state:num_steps]
            expected = sum(gamma**k * reward for k, reward in enumerate([*rewards, end]))
            errors.append((worth(state) - expected) ** 2 / 2)
    algorithm = rl.REINFORCE(horizon=8, gamma=gamma, value_weight=1.0, entropy_weight=0.0)
    with dr.start(backend="serial") as coordinator:
        result = rl.train(coordinator, Counting, algorithm, steps=8, model=model, num_envs=1)
    assert result.losses[0] == pytest.approx(np.mean(errors), rel=1e-5)


def test_an_episode_without_end_is_an_error() -> None:
    def endless() -> Any:
        return gymnasium.make("Pendulum-v1", max_episode_steps=-1)

    def short() -> Any:
        return gymnasium.make("Pendulum-v1", max_episode_steps=10)

    model = rl.policy_for(endless).initialize()
    with dr.start(backend="serial") as coordinator:
        assert len(rl.evaluate(coordinator, model, short, episodes=2, max_steps=10)) == 2
        with pytest.raises(dr.DataError, match=r"endless: an episode has not ended in 10 steps"):
            rl.evaluate(coordinator, model, endless, episodes=2, max_steps=10)


def test_policies_with_other_bounds_than_those_of_actions_are_refused() -> None:
    with dr.start(backend="serial") as coordinator:
        with pytest.raises(ValueError, match=r"needs a policy .*low=\(-2\.0,\).* this one .*low=\(-1\.0,\)"):
            rl.train(coordinator, "Pendulum-v1", steps=1, model=nn.policy(3, 1, head="tanh-gaussian"))
        model = nn.policy(3, 1, head="tanh-gaussian", low=-2, high=2).initialize()
        assert rl.evaluate(coordinator, model, "Pendulum-v1", episodes=1).shape == (1,)


def test_batch_norm_refuses_minibatches_of_one_sample() -> None:
    model = nn.Sequential(nn.Dense(8), nn.BatchNorm(), nn.ReLU(), nn.Dense(3), nn.Categorical(2))
    with (
        dr.start(backend="serial") as coordinator,
        pytest.raises(dr.PartitionError, match="BatchNorm takes the variance"),
    ):
        rl.train(
            coordinator, "CartPole-v1", rl.PPO(horizon=8, minibatches=8), steps=1, num_envs=2, shards=2, model=model
        )


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_that_do_not_fit_into_64_bits_are_refused(seed: int) -> None:
    model = rl.policy_for("CartPole-v1").initialize()
    data = np.zeros((4, 4), np.float32), np.zeros((4, 3), np.float32)
    with dr.start(backend="serial") as coordinator:
        for call in (
            lambda: rl.train(coordinator, "CartPole-v1", steps=1, seed=seed),
            lambda: rl.evaluate(coordinator, model, "CartPole-v1", seed=seed),
            lambda: coordinator.fit(nn.mlp([8], 3), data, dr.optim.SGD(), epochs=1, batch_size=4, seed=seed),
        ):
            with pytest.raises(ValueError, match=f"seed={seed}: must be"):
                call()


@pytest.mark.parametrize("head", ["softmax", "tanh-gaussian"])
def test_a_saved_policy_is_the_same_policy(tmp_path: Path, head: Any, rng: np.random.Generator) -> None:
    model = nn.policy(5, 3, [8], head, low=[-1, -2, -3], high=2).initialize(2)
    dr.save_model(model, tmp_path / "policy.safetensors")
    loaded = dr.load_model(tmp_path / "policy.safetensors")
    assert loaded.sha256() == model.sha256()
    x = rng.standard_normal((6, 5), np.float32)
    np.testing.assert_array_equal(loaded.forward(x), model.forward(x))
    np.testing.assert_array_equal(rl.numpy_policy(loaded)(x), rl.numpy_policy(model)(x))


@pytest.mark.parametrize("head", ["softmax", "tanh-gaussian"])
def test_an_exported_policy_acts_as_the_model_does_and_needs_numpy_alone(
    tmp_path: Path, head: Any, rng: np.random.Generator
) -> None:
    model = nn.policy(5, 3, [32, 16], head, low=[-1, -2, -3], high=2).initialize(2)
    model.values += rng.normal(0, 0.3, model.num_params).astype(np.float32)
    (tmp_path / "policy.py").write_text(rl.source(model))
    x = rng.standard_normal((50, 5), np.float32)
    np.save(tmp_path / "x.npy", x)
    program = (
        "import sys; sys.modules['dist_relu'] = sys.modules['numba'] = None\n"
        "import numpy as np, policy\n"
        "x = np.load('x.npy')\n"
        "made_of = policy.probabilities(x) if hasattr(policy, 'probabilities') else policy.distribution(x)\n"
        "np.savez('out.npz', actions=policy.act(x), first=policy.act(x[0]), made_of=made_of)\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, env={"PYTHONPATH": "."})
    last = model.layers[-1]
    assert isinstance(last, nn.PolicyHead)
    outputs = model.forward(x)
    best = np.empty((50, last.action_width), np.float32)
    last.best(outputs, best)
    with np.load(tmp_path / "out.npz") as out:
        np.testing.assert_allclose(out["actions"], last.chosen(best), atol=1e-6)
        np.testing.assert_allclose(out["first"], last.chosen(best)[0], atol=1e-6)
        made_of = outputs[:, :3], outputs[:, 3:6]
        expected = np.exp(made_of[0]) if head == "softmax" else [made_of[0], np.exp(made_of[1])]
        np.testing.assert_allclose(out["made_of"], expected, rtol=1e-5, atol=1e-6)


def test_only_policies_can_be_exported() -> None:
    with pytest.raises(ValueError, match="The model is no policy"):
        rl.source(nn.mlp([8], 2).build((4,)).initialize())


def test_a_policy_of_any_layers_can_be_exported(rng: np.random.Generator) -> None:
    layers = nn.FromNCHW(), nn.Conv2d(4, 3), nn.Tanh(), nn.Flatten(), nn.Dense(4), nn.Categorical(3)
    model = nn.Sequential(*layers).build((2, 3, 3)).initialize(1)
    states = rng.standard_normal((6, 2, 3, 3), np.float32)
    act = rl.numpy_policy(model)
    best = model.forward(states)[:, :3].argmax(axis=1)
    np.testing.assert_array_equal(act(states), best)
    assert act(states[0]) == best[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rl.PPO(horizon=0), r"PPO\(horizon=0\): must be at least 1"),
        (lambda: rl.PPO(clip=0), r"PPO\(clip=0\)"),
        (lambda: rl.REINFORCE(gamma=1.1), r"REINFORCE\(gamma=1\.1\)"),
        (lambda: rl.REINFORCE(lr=-1), r"REINFORCE\(lr=-1\)"),
        (lambda: rl.PPO(entropy_weight=-1), r"PPO\(entropy_weight=-1\)"),
        (lambda: nn.TanhGaussian((1.0,), (0.0,)), "low < high"),
        (lambda: nn.TanhGaussian((-np.inf,), (0.0,)), "must be finite"),
        (lambda: nn.policy(4, 2, head="soft"), 'expected "softmax" or "tanh-gaussian"'),  # type: ignore[arg-type]
        (lambda: nn.Sequential(nn.Dense(2), nn.Categorical(2)).build((4,)), "needs a network with 3 outputs"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_gymnasium_says_once_what_it_finds_odd_about_a_name() -> None:
    with pytest.warns(UserWarning, match="latest versioned environment"):
        rl.policy_for("MountainCar")
    rl.policy_for("MountainCar")
    Environments("MountainCar", [1, 2], np.dtype(np.float32)).close()  # warnings are errors in tests

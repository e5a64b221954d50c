"""Learning, as every worker runs it: act, judge what came of it, take steps; iteration after iteration.

E environments of all workers, T steps of each in an iteration, D numbers of a state, W of an action.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from time import perf_counter
from typing import final

import numpy as np

from dist_relu.comm.shared_memory import Handles
from dist_relu.comm.whereabouts import ROLLOUT
from dist_relu.core.arrays import Array
from dist_relu.engine.forward import RepeatedForward
from dist_relu.engine.memory import StepRequest
from dist_relu.engine.step import TrainingStep
from dist_relu.kernels.policy import advantages
from dist_relu.partition import Purpose, bounds, generator
from dist_relu.rl.algorithms import Algorithm, columns_of
from dist_relu.rl.environments import Env, Environments, head_of, training_seed
from dist_relu.runtime.world import World

RETURNS, ENDED = 0, 1
"""What is kept of an environment's episodes in an iteration: the sum of their returns, and how many ended."""


@dataclass(frozen=True, kw_only=True)
class LearningRequest:
    """This is everything that a worker must know to learn.

    step: its data set has states (E · T, D), and targets (E · T, W + 3).
    episodes: (E, iterations, 2) float64, see `RETURNS` and `ENDED`.
    """

    step: StepRequest
    env: Env
    algorithm: Algorithm
    num_envs: int
    iterations: int
    episodes: Handles


@dataclass(frozen=True, kw_only=True)
class LearningProgress:
    """This tells how far learning is.

    iteration: the last one, from 0.  mean_return: of its episodes, NaN where none ended; on several machines those of
    the first.
    """

    iteration: int
    iterations: int
    num_episodes: int
    mean_return: float
    steps_per_second: float


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """A lesson is what learning came to, beside episodes.  losses: (iterations,), means over the steps of each.

    diverged: the last step was not taken.
    """

    losses: Array
    seconds: float
    diverged: bool


def learn(world: World, request: LearningRequest) -> Lesson:
    """Learn; collective.  All workers return the same, but for the seconds."""
    step_of = TrainingStep(world, request.step)
    shards = range(*bounds(request.step.plan.shards, world.size)[world.rank])
    per_shard = request.num_envs // request.step.plan.shards
    mine = range(shards.start * per_shard, shards.stop * per_shard)
    seeds = [training_seed(request.step.plan.seed, number) for number in mine]
    with Environments(request.env, seeds, step_of.model.dtype) as environments:
        step_of.load_kernels()
        rollout = Rollout(world, request, step_of, shards, environments)
        return _iterate(world, request, step_of, rollout)


def _iterate(world: World, request: LearningRequest, step_of: TrainingStep, rollout: Rollout) -> Lesson:
    algorithm = request.algorithm
    episodes = world.node.attach(request.episodes)
    steps_per_iteration = algorithm.epochs * algorithm.minibatches
    losses: list[float] = []
    began, step = perf_counter(), 0

    def lesson(*, diverged: bool) -> Lesson:
        seconds = perf_counter() - began
        return Lesson(losses=np.array(losses), seconds=seconds, diverged=diverged)

    for iteration in range(request.iterations):
        iteration_began = perf_counter()
        rollout.collect(iteration, episodes[:, iteration])
        losses.append(0.0)
        for epoch in range(algorithm.epochs):
            for samples in _minibatches(request, rollout.shards, iteration, epoch):
                loss = step_of.take(range(step, step + 1), samples, [(step + 0.5) / steps_per_iteration])
                losses[-1] += loss / steps_per_iteration
                step += 1
                if not isfinite(loss):
                    return lesson(diverged=True)
        if world.rank == 0:
            returns, ended = episodes[:, iteration].sum(axis=0)
            rate = request.num_envs * algorithm.horizon / (perf_counter() - iteration_began)
            mean = returns / ended if ended else np.nan
            progress = LearningProgress(
                iteration=iteration,
                iterations=request.iterations,
                num_episodes=int(ended),
                mean_return=float(mean),
                steps_per_second=rate,
            )
            world.report(progress)
    return lesson(diverged=False)


def _minibatches(request: LearningRequest, shards: range, iteration: int, epoch: int) -> Array:
    """The samples of each minibatch of a pass, (minibatches, batch size), those of a shard side by side.

    Each shard's part is drawn from its own samples. Those of other workers' shards are theirs to know: here they are 0.
    """
    plan, minibatches = request.step.plan, request.algorithm.minibatches
    per_shard = plan.batch_size * minibatches // plan.shards
    samples = np.zeros((minibatches, plan.shards, per_shard // minibatches), np.int64)
    for shard in shards:
        order = generator(plan.seed, Purpose.MINIBATCHES, iteration, epoch, shard).permutation(per_shard)
        samples[:, shard] = shard * per_shard + order.reshape(minibatches, -1)
    return samples.reshape(minibatches, -1)


@final
class Rollout:
    """What the environments of a worker's shards did in an iteration; its e environments are rows here."""

    def __init__(
        self, world: World, request: LearningRequest, step_of: TrainingStep, shards: range, environments: Environments
    ) -> None:
        plan, horizon = request.step.plan, request.algorithm.horizon
        self.shards = shards
        self._world, self._algorithm, self._seed = world, request.algorithm, plan.seed
        self._environments = environments
        self._per_shard = request.num_envs // plan.shards
        self._mine = slice(shards.start * self._per_shard, shards.stop * self._per_shard)
        x, targets = step_of.samples.array, world.node.attach(request.step.memory.y)
        assert x is not None  # they lie in memory
        self._step_of = step_of
        self._states = x.reshape(request.num_envs, horizon, -1)[self._mine]
        self._targets = targets.reshape(request.num_envs, horizon, -1)[self._mine]
        self._head = head = head_of(request.step.model)
        shape = len(self._states), horizon
        self._outputs = np.empty((*shape, head.inputs), x.dtype)
        self._actions = np.empty((horizon, len(self._states), head.action_width), x.dtype)
        self._rewards, self._next_values, self._advantages = np.empty((3, *shape))
        self._ended = np.empty(shape, bool)
        self._returns_so_far = np.zeros(len(self._states))
        self._forward = RepeatedForward(step_of.model, len(self._states))

    def collect(self, iteration: int, episodes: Array) -> None:
        """Act `horizon` times in each environment, and leave states and targets.

        episodes: (E, 2), see `RETURNS` and `ENDED`; gets this worker's rows.
        """
        self._world.node.whereabouts.enter(ROLLOUT)
        horizon, generation = self._algorithm.horizon, self._step_of.generation
        states, noise = self._environments.states, self._noise(iteration)
        cut_short: list[tuple[int, int, Array]] = []
        self._ended[...] = False
        reward = np.empty(len(states))
        for t in range(horizon):
            self._world.barrier.check()
            self._states[:, t] = states
            outputs = self._forward(states, generation)
            self._outputs[:, t] = outputs
            self._head.draw(outputs, noise[t], self._actions[t])
            ended = self._environments.step(self._head.chosen(self._actions[t]), reward)
            self._rewards[:, t] = reward
            self._returns_so_far += reward
            for number, last_state in ended:
                self._ended[number, t] = True
                if last_state is not None:
                    cut_short.append((number, t, last_state))
                episodes[self._mine][number] += self._returns_so_far[number], 1
                self._returns_so_far[number] = 0
        self._next_values[:, :-1] = self._outputs[:, 1:, -1]
        self._next_values[:, -1] = self._forward(states, generation)[:, -1]
        self._next_values[self._ended] = 0
        if cut_short:
            numbers, times, last_states = zip(*cut_short, strict=True)
            self._next_values[numbers, times] = self._step_of.model.forward(np.array(last_states))[:, -1]
        self._judge()

    def _judge(self) -> None:
        """Leave what there is to learn from these steps."""
        values = self._outputs[:, :, -1].astype(float)
        gamma, lam, out = self._algorithm.gamma, self._algorithm.lam, self._advantages
        advantages(self._rewards, values, self._next_values, self._ended, gamma, lam, out)
        rows = self._targets.reshape(-1, self._targets.shape[-1])
        actions, log_probs, normed, returns = columns_of(self._head, rows)
        actions[...] = self._actions.swapaxes(0, 1).reshape(len(rows), -1)
        self._head.log_probs(self._outputs.reshape(len(rows), -1), actions, log_probs, np.empty(len(rows)))
        returns[...] = (out + values).reshape(-1)
        # Shard by shard, as a batch's statistics are, so that they are the same wherever shards are.
        normed[...] = np.concatenate([_normalised(part) for part in out.reshape(len(self.shards), -1)])

    def _noise(self, iteration: int) -> Array:
        """What actions are drawn with, (T, e, W)."""
        shape = self._algorithm.horizon, self._per_shard
        streams = (generator(self._seed, Purpose.ACTIONS, iteration, shard) for shard in self.shards)
        return np.concatenate([self._head.noise(shape, rng) for rng in streams], axis=1)


def _normalised(x: Array) -> Array:
    """x (n,) with mean 0 and standard deviation 1."""
    difference: Array = x - x.mean()
    difference /= x.std() + 1e-8
    return difference

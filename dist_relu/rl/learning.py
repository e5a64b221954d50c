"""The coordinator's side of learning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt

from dist_relu.coordinator import Coordinator
from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_callable, check_int, check_is, check_seed, optional
from dist_relu.engine.arguments import check_statistics
from dist_relu.engine.memory import Snapshot, StepMemory
from dist_relu.engine.plan import StepOptions, StepPlan
from dist_relu.errors import PartitionError, TrainingDiverged
from dist_relu.nn import Sequential, TanhGaussian, policy
from dist_relu.optim import Adam, Cosine
from dist_relu.partition import bounds, check_fit
from dist_relu.rl.algorithms import PPO, Algorithm
from dist_relu.rl.environments import Env, Spaces
from dist_relu.rl.worker import ENDED, RETURNS, LearningProgress, LearningRequest, Lesson, learn
from dist_relu.runtime.placed import PlacedDataset
from dist_relu.runtime.placed_samples import PlacedSamples

_NUM_ENVS = 16


@dataclass(frozen=True, kw_only=True)
class LearningResult:
    """A result is what learning came to.

    mean_returns: (iterations,), of the episodes that ended in each, NaN where none did.  num_episodes, losses:
    (iterations,).  num_steps: of all environments together.
    """

    model: Sequential
    mean_returns: Array
    num_episodes: Array
    losses: Array
    num_steps: int
    seconds: float

    def __repr__(self) -> str:
        return f"LearningResult(iterations: {len(self.losses)}, steps: {self.num_steps:,}, {self.seconds:.3g} s)"

    @property
    def digest(self) -> str:
        """That of the parameters, see `Sequential.sha256`."""
        return self.model.sha256()


def policy_for(env: Env, hidden: Sequence[int] = (64, 64), dtype: npt.DTypeLike = np.float32) -> Sequential:
    """`nn.policy` for the states and actions of an environment.  Raises `DataError` when there is no such policy."""
    spaces = Spaces.of(env)
    if isinstance(spaces.head, TanhGaussian):
        low, high = spaces.head.low, spaces.head.high
        return policy(spaces.state_dim, len(low), hidden, "tanh-gaussian", low=low, high=high, dtype=dtype)
    return policy(spaces.state_dim, spaces.head.inputs - 1, hidden, dtype=dtype)


def train(
    coordinator: Coordinator,
    env: Env,
    algorithm: Algorithm | None = None,
    *,
    steps: int,
    model: Sequential | None = None,
    num_envs: int | None = None,
    shards: int | None = None,
    seed: int = 0,
    on_progress: Callable[[LearningProgress], object] | None = None,
) -> LearningResult:
    """Let a policy learn in an environment; collective.

    env: a name that gymnasium knows, or a function that makes an environment.  algorithm: by default `PPO()`.
    steps: of all environments together; whole iterations of `horizon` steps of each are done, until there are as many.
    model: trained in place, from the parameters that it has; by default `policy_for(env)`.
    num_envs: environments that are stepped side by side, a multiple of the shards; by default 16, or the next multiple.
    shards: parts of the environments and of every batch, by default the number of workers; with the same shards and
    seed, any number of workers ends with the same bits, if environments are fixed by the seeds that they get.
    on_progress: called after every iteration.

    Raises DataError, PartitionError and ValueError for what does not fit, before anything is done, and
    TrainingDiverged when the loss becomes NaN or infinite; the model then has the parameters before that step. After
    KeyboardInterrupt, or an exception of `on_progress` or an environment, it has those after the last complete step.
    """
    check_is("coordinator", coordinator, Coordinator)
    algorithm = PPO() if algorithm is None else algorithm
    check_is("algorithm", algorithm, Algorithm)
    optional(check_callable)("on_progress", on_progress)
    shards = coordinator.workers if shards is None else check_int("shards", shards)
    num_envs = ceil(_NUM_ENVS / shards) * shards if num_envs is None else check_int("num_envs", num_envs)
    steps, seed = check_int("steps", steps), check_seed(seed)
    _check_division(num_envs, shards, coordinator.workers, algorithm)
    spaces = Spaces.of(env)
    if model is None:
        model = policy_for(env)
    spaces.check(model, env)
    model.build((spaces.state_dim,))
    per_iteration = num_envs * algorithm.horizon
    batch_size = per_iteration // algorithm.minibatches
    check_statistics(model, batch_size, batch_size, shards)
    if not model.has_values:
        model.initialize(seed)
    iterations = ceil(steps / per_iteration)
    initial = model.values.copy()

    def attempt() -> tuple[Lesson, bool, Array]:
        model.values = initial
        with coordinator.replicas.for_a_call() as replicas:
            targets = replicas.zeros((per_iteration, spaces.head.action_width + 3), model.dtype)
            states = replicas.zeros((per_iteration, spaces.state_dim), model.dtype)
            placed = PlacedDataset(PlacedSamples.in_memory(states, model.dtype), targets)
            optimizer = Adam(Cosine(algorithm.lr, iterations), epsilon=1e-5)
            options = StepOptions(clip_norm=algorithm.clip_norm)
            plan = StepPlan(
                loss=algorithm.loss(spaces.head),
                optimizer=optimizer,
                options=options,
                batch_size=batch_size,
                shards=shards,
                seed=seed,
            )
            memory = StepMemory(replicas, model, placed, plan, Snapshot.initial(model.values, plan))
            episodes = replicas.zeros((num_envs, iterations, 2), np.float64)
            request = LearningRequest(
                step=memory.request(),
                env=env,
                algorithm=algorithm,
                num_envs=num_envs,
                iterations=iterations,
                episodes=episodes.handles,
            )
            try:
                lesson: Lesson = coordinator.run(learn, request, on_progress)[0]
            finally:
                has_overflowed = _keep_what_is_left(model, memory)
            totals = episodes.gather(replicas.rows_by_node(_rows(num_envs, shards, coordinator.workers))).sum(axis=0)
        return lesson, has_overflowed, totals

    lesson, has_overflowed, totals = coordinator.survive(attempt)
    if lesson.diverged or has_overflowed:
        iteration = len(lesson.losses) - 1
        raise TrainingDiverged(
            f"Loss or parameters became NaN or infinite in iteration {iteration}. Lower the learning rate."
        )
    with np.errstate(invalid="ignore"):
        mean_returns = totals[:, RETURNS] / totals[:, ENDED]
    num_episodes = totals[:, ENDED].astype(int)
    return LearningResult(
        model=model,
        mean_returns=mean_returns,
        num_episodes=num_episodes,
        losses=lesson.losses,
        num_steps=iterations * per_iteration,
        seconds=lesson.seconds,
    )


def _keep_what_is_left(model: Sequential, memory: StepMemory) -> bool:
    """Give the model the parameters after the last complete step, and tell whether only those before it are numbers."""
    last = memory.finite_snapshot()
    if last is None:
        return False
    model.values = last.vectors[0]
    return last.step < memory.num_completed()


def _check_division(num_envs: int, shards: int, workers: int, algorithm: Algorithm) -> None:
    """Raise `PartitionError` unless environments go evenly into shards, and their samples into minibatches."""
    check_fit(num_envs, num_envs, shards, workers)
    if num_envs % shards:
        raise PartitionError(
            f"{num_envs} environments can't be shared evenly by {shards} shards. Pass a multiple of {shards}."
        )
    per_shard = num_envs // shards * algorithm.horizon
    if per_shard % algorithm.minibatches:
        raise PartitionError(
            f"The {per_shard} samples of a shard can't be cut into {algorithm.minibatches} equal minibatches. "
            "Pass another horizon or number of minibatches."
        )


def _rows(num_envs: int, shards: int, workers: int) -> list[range]:
    """The environments of each worker, by rank."""
    per_shard = num_envs // shards
    return [range(first * per_shard, stop * per_shard) for first, stop in bounds(shards, workers)]

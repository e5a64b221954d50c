"""Environments of gymnasium: what they take and give, and several of them stepped together.

E environments, D numbers of a state.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Self, cast, final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_is, shown
from dist_relu.errors import DataError
from dist_relu.nn import Categorical, PolicyHead, Sequential, TanhGaussian
from dist_relu.partition import Purpose, generator

Env = str | Callable[[], Any]
"""A name that gymnasium knows, perhaps with a module to import before it ("module:Name-v0"), or a function that makes
an environment."""

_IN_TRAINING, _FRESH = 0, 1


def make(env: Env, *, says_what_is_odd: bool = False) -> Any:
    """A new environment.  Raises `DataError` when there is none of that name, or gymnasium is not installed.

    says_what_is_odd: whether gymnasium's warnings are shown, the first time; they come whenever one is made.
    """
    gym = _gymnasium()
    if not isinstance(env, str):
        if not callable(env):
            raise TypeError(f"{shown('env', env)}: expected a name that gymnasium knows, or a function.")
        made = env()
        if not (hasattr(made, "reset") and hasattr(made, "step")):
            raise TypeError(f"{shown('env', env)}: returned {made!r}; expected an environment of gymnasium.")
        return made
    try:
        with warnings.catch_warnings():
            if not says_what_is_odd or env in _told_of:
                warnings.simplefilter("ignore")
            else:
                _told_of.add(env)
            return gym.make(env, disable_env_checker=True)
    except (gym.error.Error, ModuleNotFoundError) as error:
        raise DataError(f"There is no environment {env!r} here: {str(error).rstrip('.')}.") from None


_told_of: set[str] = set()
"""Environments of which gymnasium has said in this process what it has to say."""


@dataclass(frozen=True)
class Spaces:
    """What an environment shows and takes."""

    state_dim: int
    head: PolicyHead

    @classmethod
    def of(cls, env: Env) -> Spaces:
        """Raises `DataError` for spaces that policies don't suit."""
        spaces = _gymnasium().spaces
        made = make(env, says_what_is_odd=True)
        try:
            states, actions = made.observation_space, made.action_space
        finally:
            made.close()
        if not isinstance(states, spaces.Box) or len(states.shape) != 1:
            raise DataError(f"{name_of(env)} shows {states}; policies take states in a Box of one dimension.")
        if isinstance(actions, spaces.Discrete) and actions.start == 0:
            return cls(states.shape[0], Categorical(int(actions.n)))
        if isinstance(actions, spaces.Box) and len(actions.shape) == 1 and actions.is_bounded():
            return cls(states.shape[0], TanhGaussian(actions.low.tolist(), actions.high.tolist()))
        raise DataError(
            f"{name_of(env)} takes {actions}; policies choose from Discrete actions that count from 0, or from a "
            "bounded Box of one dimension."
        )

    def check(self, model: Sequential, env: Env) -> None:
        """Raise ValueError unless `model` is a policy for such states and actions."""
        head = head_of(model)
        states = model.input_shape if model.is_built else (self.state_dim,)
        if _actions_of(head) != _actions_of(self.head) or states != (self.state_dim,):
            raise ValueError(
                f"{name_of(env)} needs a policy for states of shape ({self.state_dim},) with the head {self.head}; "
                f"this one is for {states}, with {head}. rl.policy_for makes one that fits."
            )


def _actions_of(head: PolicyHead) -> tuple[Any, ...]:
    """What actions a head gives: their kind and number, and bounds as environments know them, in float32."""
    bounds = np.array([head.low, head.high], np.float32).tolist() if isinstance(head, TanhGaussian) else None
    return type(head), head.inputs, bounds


def head_of(model: Sequential) -> PolicyHead:
    """The last layer of a policy.  Raises ValueError for a model that is none."""
    last = check_is("model", model, Sequential).layers[-1]
    if not isinstance(last, PolicyHead):
        raise ValueError(f"The model is no policy: it ends with {last}, not with a head. nn.policy makes policies.")
    return last


def name_of(env: Env) -> str:
    return env if isinstance(env, str) else getattr(env, "__name__", repr(env))


def training_seed(seed: int, number: int) -> int:
    """What environment `number` starts from in training."""
    return _seed(seed, _IN_TRAINING, number)


def fresh_seed(seed: int, episode: int) -> int:
    """What a fresh episode starts from; those of training start from others."""
    return _seed(seed, _FRESH, episode)


def _seed(seed: int, use: int, number: int) -> int:
    return int(generator(seed, Purpose.ENVIRONMENTS, use, number).integers(2**31))


@final
class Environments:
    """Environments that are stepped together; an episode that ended is followed by another at once.

    states: (E, D), those to act upon; each step overwrites them.  Use as a context manager: it closes them.
    """

    def __init__(self, env: Env, seeds: Sequence[int], dtype: np.dtype[Any]) -> None:
        self._envs: list[Any] = []
        try:
            self._envs.extend(make(env) for _ in seeds)
            starts = [env.reset(seed=seed)[0] for env, seed in zip(self._envs, seeds, strict=True)]
        except BaseException:
            self.close()
            raise
        self.states = np.array(starts, dtype)

    def step(self, actions: Array, rewards: Array) -> list[tuple[int, Array | None]]:
        """Act in every environment.  rewards: (E,), overwritten.

        Returns the numbers of those whose episodes ended, each with its last state where it was only cut short, by a
        limit of time, and would have gone on from there; None where it was over.
        """
        ended: list[tuple[int, Array | None]] = []
        for number, (env, action) in enumerate(zip(self._envs, actions, strict=True)):
            state, rewards[number], terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                ended.append((number, None if terminated else np.array(state, self.states.dtype)))
                state, _ = env.reset()
            self.states[number] = state
        return ended

    def close(self) -> None:
        for env in self._envs:
            with suppress(Exception):  # the others must be closed too
                env.close()
        self._envs.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _gymnasium() -> ModuleType:
    try:
        import gymnasium
    except ImportError:
        raise DataError("Environments come from gymnasium. Install it: pip install 'dist_relu[rl]'.") from None
    except Exception as error:  # whatever is wrong with it
        raise DataError(f"Environments come from gymnasium, which can't be imported: {error}.") from error
    return cast(ModuleType, gymnasium)

"""How fast a policy learns on several workers beside one, by turns in one run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from dist_relu import rl
from dist_relu.coordinator import start

ENV = "CartPole-v1"


@dataclass(frozen=True)
class Learning:
    """Medians over rounds: steps of environments in a second, with all that is learned from them by PPO."""

    env: str
    steps: int
    workers: int
    one_per_s: float
    several_per_s: float
    speed_up: float


def run(workers: int, rounds: int, steps: int) -> Iterator[Learning]:
    """Let a policy learn for so many steps, of as many shards on one worker as on several.

    Yields what all rounds come to after each of them.
    """
    speeds = np.empty((rounds, 2))
    with ExitStack() as stack:
        coordinators = [stack.enter_context(start(number, backend="local")) for number in (1, workers)]
        for coordinator in coordinators:
            rl.train(coordinator, ENV, steps=1, shards=workers)  # compiles kernels
        turns = list(enumerate(coordinators))
        for i in range(rounds):
            for j, coordinator in reversed(turns) if i % 2 else turns:
                result = rl.train(coordinator, ENV, steps=steps, shards=workers)
                speeds[i, j] = result.num_steps / result.seconds
            of_rounds = speeds[: i + 1]
            one, several = np.median(of_rounds, axis=0).tolist()
            speed_up = float(np.median(of_rounds[:, 1] / of_rounds[:, 0]))
            yield Learning(ENV, steps, workers, one, several, speed_up)

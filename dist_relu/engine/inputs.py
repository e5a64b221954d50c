"""What differs from step to step lies here, in arrays that stay where they are, so that steps can be played."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.engine.plan import StepPlan
from dist_relu.kernels import steps as kernels

_MAX_SAMPLES = 1 << 16
_MAX_STEPS = 4096


@final
class StepInputs:
    """Inputs are brought for several steps, and each step takes its own.

    max_steps: so many steps can be brought at once.  clock: see `dist_relu.kernels.steps`.
    samples: (plan.batch_size x plan.options.accumulate,) int64, those of the present step; its last batch may be
    smaller.  hyper: what its optimiser's rule asks for.  outcome: (2,) float64, its loss and its number of correct
    predictions, as far as they are known.
    """

    def __init__(self, plan: StepPlan, dtype: np.dtype[Any]) -> None:
        """dtype: of the parameters."""
        num_samples = plan.batch_size * plan.options.accumulate
        self.max_steps = max(1, min(_MAX_STEPS, _MAX_SAMPLES // num_samples))
        self.clock = np.zeros(kernels.NUM_WORDS, np.int64)
        self.samples = np.zeros(num_samples, np.int64)
        self.hyper = np.zeros(len(plan.optimizer.hyper(0, 0.0)), dtype)
        self.outcome = np.zeros(2)
        self._coming = np.zeros(self.max_steps * num_samples, np.int64)
        self._hypers = np.zeros((self.max_steps, len(self.hyper)), dtype)

    def bring(self, first: int, samples: Array, hypers: Sequence[Sequence[float]]) -> None:
        """Bring what steps from number `first` on need.

        samples: one step's after another.  hypers: what `Optimizer.hyper` says of each.
        """
        self.clock[kernels.STEP] = first - 1
        self.clock[[kernels.ROW, kernels.SAMPLE]] = 0
        self._coming[: len(samples)] = samples
        self._hypers[: len(hypers)] = hypers

    def begin_step(self, num_samples: int, place: Array, phase: int) -> None:
        """Take what the next step needs.  place: see `kernels.begin_step`."""
        samples = self.samples[:num_samples]
        kernels.begin_step(self.clock, self._coming, samples, self._hypers, self.hyper, self.outcome, place, phase)

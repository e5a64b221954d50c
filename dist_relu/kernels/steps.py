"""What a training step does between its passes and its updates: numbers that differ from step to step move on.

They lie in arrays that stay where they are, so that steps can be played from a tape (`dist_relu.kernels.tape`).
"""

from __future__ import annotations

from math import isfinite
from typing import Any

import numpy as np
from numba.core import types

from dist_relu.core.arrays import Array
from dist_relu.kernels.atomic import store_release
from dist_relu.kernels.jit import kernel

STEP, BATCH, ROW, SAMPLE, BEGAN_NS = range(5)
"""The words of a clock (NUM_WORDS,) int64: the present step, and its present batch, both counted from the beginning of
the run; the next row of hyperparameters, and the next sample, of those to come; when the step began."""
_TIME = 5
NUM_WORDS = _TIME + 2

_CLOCK_MONOTONIC = 1
_clock_gettime: Any = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.intp))


@kernel
def _now_ns(clock: Array) -> int:
    """Tell the time as `time.monotonic_ns` does."""
    _clock_gettime(_CLOCK_MONOTONIC, clock.ctypes.data + _TIME * clock.itemsize)
    now: int = clock[_TIME] * 1_000_000_000 + clock[_TIME + 1]
    return now


@kernel
def begin_step(
    clock: Array, coming: Array, samples: Array, hypers: Array, hyper: Array, outcome: Array, place: Array, phase: int
) -> None:
    """Begin with the next step.

    coming: the samples of steps to come, one after another.  samples: gets those of this one.  hypers: a row for each
    step to come.  hyper: gets that of this one.  outcome: see `add_outcome`; becomes 0.
    place: (3,) int64, gets the number of the step, the phase, and the time.
    """
    clock[STEP] += 1
    first, row = clock[SAMPLE], clock[ROW]
    for i in range(samples.shape[0]):
        samples[i] = coming[first + i]
    for i in range(hyper.shape[0]):
        hyper[i] = hypers[row, i]
    clock[SAMPLE] += samples.shape[0]
    clock[ROW] += 1
    outcome[0] = outcome[1] = 0
    clock[BEGAN_NS] = _now_ns(clock)
    place[0], place[1], place[2] = clock[STEP], phase, clock[BEGAN_NS]


@kernel
def begin_batch(clock: Array, number: int, per_step: int) -> None:
    """Begin with batch `number` of a step of so many."""
    clock[BATCH] = clock[STEP] * per_step + number


@kernel
def enter(place: Array, phase: int) -> None:
    """Note a phase; place: as for `begin_step`."""
    place[1] = phase


@kernel
def add_outcome(total: Array, num_samples: int, outcome: Array) -> int:
    """Add what a batch has come to.

    total: (2,), the summed loss of its samples, and how many were predicted right.  num_samples: of the whole step.
    outcome: (2,) float64, the mean loss, and how many were predicted right.  Returns 1 if the loss is no number now.
    """
    outcome[0] += np.float64(total[0]) / num_samples
    outcome[1] += total[1]
    return 0 if isfinite(outcome[0]) else 1


@kernel
def record_step(
    clock: Array, outcome: Array, num_samples: int, losses: Array, nums_correct: Array, nums_samples: Array
) -> None:
    """Record what a step has come to; losses and so on: (records,), that of step n is number n % records."""
    record = clock[STEP] % losses.shape[0]
    losses[record] = outcome[0]
    nums_correct[record] = outcome[1]
    nums_samples[record] = num_samples


@kernel
def complete_step(clock: Array, completed: Array, seconds: Array, place: Array, phase: int) -> None:
    """Note that all workers have taken a step.

    completed: (1,), is counted up.  seconds: (records,), gets how long it took; empty: nobody wants to know.
    """
    place[1] = phase
    store_release(completed, 0, completed[0] + 1)  # who sees it sees all of the step, also on arm64
    if seconds.shape[0]:
        seconds[clock[STEP] % seconds.shape[0]] = (_now_ns(clock) - clock[BEGAN_NS]) * 1e-9

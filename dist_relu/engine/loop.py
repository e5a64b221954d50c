"""Training, as every worker runs it: epoch after epoch, step after step."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, isfinite
from time import perf_counter

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.engine.memory import StepRequest
from dist_relu.engine.step import TrainingStep
from dist_relu.engine.watch.recorder import SeenEpoch, SeenStep
from dist_relu.partition import epoch_order
from dist_relu.runtime.world import World

_REPORT_EVERY_S = 0.1


@dataclass(frozen=True, kw_only=True)
class FitRequest:
    """Everything a worker must know to train."""

    step: StepRequest
    epochs: int
    shuffle: bool


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far training is.  loss and accuracy: means over the samples of this epoch so far."""

    epoch: int
    step: int
    num_steps: int
    loss: float
    accuracy: float
    samples_per_second: float


@dataclass(frozen=True, kw_only=True)
class Trace:
    """What happened, step by step.  loss: means over the samples.  num_correct: samples predicted right.

    generation: the one that holds the final parameters.  diverged: the loss of the last step was no number, and the
    step was not taken.
    """

    loss: Array
    num_correct: Array
    num_samples: Array
    seconds: Array
    generation: int
    diverged: bool


def num_steps_per_epoch(num_samples: int, batch_size: int, accumulate: int) -> int:
    """The last batch of an epoch may be smaller than the others, and the last step may have fewer batches."""
    return ceil(num_samples / (batch_size * accumulate))


def fit(world: World, request: FitRequest) -> Trace:
    """Train; collective.  All workers return the same trace, but for the seconds.

    Worker 0 reports `Progress` and each `SeenStep` several times a second, and each `SeenEpoch`.
    """
    plan = request.step.plan
    step_of = TrainingStep(world, request.step)
    num_samples = len(step_of.x)
    per_step = plan.batch_size * plan.options.accumulate
    per_epoch = num_steps_per_epoch(num_samples, plan.batch_size, plan.options.accumulate)
    losses, num_correct, sizes, seconds = [], [], [], []
    seen: list[SeenStep] = []
    step_of.load_kernels()
    reported = perf_counter()
    step, diverged = 0, False
    for epoch in range(request.epochs):
        epoch_began = perf_counter()
        order = epoch_order(num_samples, plan.seed, epoch, shuffle=request.shuffle)
        step_of.begin_epoch()
        for i in range(per_epoch):
            begin = perf_counter()
            samples = order[i * per_step : (i + 1) * per_step]
            loss, right = step_of.take(samples, step, (step + 0.5) / per_epoch)
            diverged = not isfinite(loss)
            now = perf_counter()
            losses.append(loss)
            num_correct.append(right)
            sizes.append(len(samples))
            seconds.append(now - begin)
            if step_of.notes is not None:
                seen.append(SeenStep(step, loss, right, len(samples), now - begin, step_of.notes, step_of.norms))
            step += 1
            last = i == per_epoch - 1
            if world.rank == 0 and (now - reported > _REPORT_EVERY_S or last or diverged):
                world.report(
                    Progress(
                        epoch=epoch,
                        step=step,
                        num_steps=request.epochs * per_epoch,
                        loss=float(np.average(losses[-i - 1 :], weights=sizes[-i - 1 :])),
                        accuracy=sum(num_correct[-i - 1 :]) / sum(sizes[-i - 1 :]),
                        samples_per_second=sum(sizes[-i - 1 :]) / (now - epoch_began),
                    )
                )
                if seen:
                    world.report(seen)
                    seen = []
                reported = now
            if diverged:
                break
        if diverged:
            break
        active = step_of.end_epoch()
        if world.rank == 0:
            of_epoch = losses, num_correct, sizes, seconds
            world.report(SeenEpoch(active, *(np.array(numbers[-per_epoch:]) for numbers in of_epoch)))
    return Trace(
        loss=np.array(losses),
        num_correct=np.array(num_correct),
        num_samples=np.array(sizes),
        seconds=np.array(seconds),
        generation=step_of.generation,
        diverged=diverged,
    )

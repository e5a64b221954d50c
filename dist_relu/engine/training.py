"""Training, on the coordinator's side: a run gets its memory, workers take its steps, and what it leaves is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from dist_relu.core.arrays import Array
from dist_relu.data.augment import ImageShape
from dist_relu.engine.loop import FitRequest, Trace, fit
from dist_relu.engine.memory import StepMemory, Trained, stopped, trained
from dist_relu.engine.plan import StepPlan
from dist_relu.engine.watch.observer import Observer
from dist_relu.errors import TrainingDiverged
from dist_relu.nn import Sequential
from dist_relu.runtime.placed import PlacedDataset
from dist_relu.runtime.replicated import ReplicatedArrays

Run = Callable[[Callable[..., Any], Any, Callable[[Any], object]], list[Any]]
"""(function, request, on_event): see `Coordinator.run`."""


def train(
    run: Run,
    replicas: ReplicatedArrays,
    model: Sequential,
    data: PlacedDataset,
    plan: StepPlan,
    observer: Observer,
    image_shape: ImageShape | None = None,
    *,
    epochs: int = 1,
    shuffle: bool = False,
    keeps_what_is_left: bool = False,
) -> tuple[Trace, Trained]:
    """Run `loop.fit` on all workers; `model` stays as it is.

    replicas: of this call.  image_shape: of samples that are augmented.  keeps_what_is_left: when it ends with an
    exception, the model gets the parameters after the last complete step.
    """
    data.x.broadcast()
    data.y.broadcast()
    watch = observer.request(replicas, replicas.nodes[-1].stop)
    memory = StepMemory(replicas, model, data, plan, is_watched=watch is not None)
    request = FitRequest(step=memory.request(watch, image_shape), epochs=epochs, shuffle=shuffle)
    with what_is_left_kept(model, memory) if keeps_what_is_left else nullcontext():
        trace: Trace = run(fit, request, observer.hear)[0]
    return trace, trained(memory, trace.generation)


@contextmanager
def what_is_left_kept(model: Sequential, memory: StepMemory) -> Iterator[None]:
    """Give the model what a run leaves that ends with an exception: the parameters after its last complete step.

    With an average of parameters the exception's `average` is the model with them.
    """
    try:
        yield
    except BaseException as error:
        if left := stopped(memory):
            model.values = left.values
            if left.average is not None:
                error.average = with_values(model, left.average)  # type: ignore[attr-defined]
        raise


def check_converged(trace: Trace, run: Trained, per_epoch: int, observer: Observer) -> None:
    """Raise TrainingDiverged where the last step led to numbers that are none.  per_epoch: the number of steps."""
    if not trace.diverged and not run.overflowed:
        return
    what = f"The loss became {trace.loss[-1]}" if trace.diverged else "Parameters became NaN or infinite"
    step = len(trace.loss) - 1
    error = TrainingDiverged(
        f"{what} in step {step} (epoch {step // per_epoch}). Lower the learning rate, warm it up, or clip the "
        "norm of gradients."
    )
    error.watched = observer.watched
    raise error


def with_values(model: Sequential, values: Array) -> Sequential:
    """Return the same model with parameters of its own."""
    copy = model.blueprint().build(model.input_shape)
    copy.bind(values.copy())
    return copy

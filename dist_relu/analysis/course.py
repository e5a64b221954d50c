"""A course tells how the training of a network goes: loss, gradient and sparsity, from step to step."""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot, isfinite, prod

from dist_relu.coordinator import Coordinator
from dist_relu.core.checks import check_is
from dist_relu.data import Split
from dist_relu.engine.watch.observer import ProgressHandler
from dist_relu.engine.watch.records import Watch, WatchedStep
from dist_relu.engine.weighting import ClassWeight
from dist_relu.errors import TrainingDiverged
from dist_relu.nn import RNN, CReLU, Loss, PReLU, RReLU, Sequential
from dist_relu.nn.layers.activations import Elementwise
from dist_relu.optim import Optimizer

_ACTING = Elementwise, PReLU, RReLU, CReLU, RNN


@dataclass(frozen=True, kw_only=True)
class Course:
    """A course is a training run, as it was seen in some of its steps.

    steps: their numbers.  loss: the mean over a step's samples.  gradient_norm: Euclidean, of all parameters together.
    sparsity: the share of zeros in what comes out of hidden layers with an activation; where pooling is done in the
    same pass, after it.  test_loss, test_accuracy: on unseen samples, at the end.
    A run that diverged has the steps until then, and no test; without classes there is no accuracy.
    """

    steps: list[int]
    loss: list[float]
    gradient_norm: list[float]
    sparsity: list[float]
    test_loss: float | None
    test_accuracy: float | None

    @property
    def diverged(self) -> bool:
        return self.test_loss is None


def watched_course(
    coordinator: Coordinator,
    model: Sequential,
    data: Split,
    optimizer: Optimizer,
    *,
    epochs: int,
    batch_size: int,
    watch: Watch,
    seed: int = 0,
    shards: int | None = None,
    loss: Loss | None = None,
    class_weight: ClassWeight | None = None,
    on_progress: ProgressHandler | None = None,
) -> Course:
    """Train the model, in place, and test it.

    loss, class_weight: as for `Coordinator.fit`; it is tested with the same loss.

    Collective; the same bits on any number of workers, if `shards` is fixed. Raises what `Coordinator.fit` does, but
    for TrainingDiverged.
    """
    check_is("coordinator", coordinator, Coordinator)
    check_is("data", data, Split)
    try:
        result = coordinator.fit(
            model,
            data.train,
            optimizer,
            epochs=epochs,
            batch_size=batch_size,
            watch=watch,
            seed=seed,
            shards=shards,
            loss=loss,
            class_weight=class_weight,
            on_progress=on_progress,
        )
        steps = result.watched
        test = coordinator.evaluate(model, data.test, loss=loss)
        test_loss, test_accuracy = (test.loss, test.accuracy) if isfinite(test.loss) else (None, None)
    except TrainingDiverged as error:
        steps, test_loss, test_accuracy = list(error.watched), None, None
    norms = [hypot(*(param.gradient_norm for param in step.params)) for step in steps]
    finite = [number for number, step in enumerate(steps) if isfinite(step.loss) and isfinite(norms[number])]
    sizes = _sizes_of_acting(model, steps)
    return Course(
        steps=[steps[number].step for number in finite],
        loss=[steps[number].loss for number in finite],
        gradient_norm=[norms[number] for number in finite],
        sparsity=[_sparsity(steps[number], sizes) for number in finite],
        test_loss=test_loss,
        test_accuracy=test_accuracy,
    )


def _sparsity(step: WatchedStep, sizes: list[int]) -> float:
    return sum(size * layer.sparsity for size, layer in zip(sizes, step.layers, strict=True)) / sum(sizes)


def _sizes_of_acting(model: Sequential, steps: list[WatchedStep]) -> list[int]:
    """Count the numbers that come out of each watched pass, or 0 for one without an activation.

    In a network without any, all passes but the last one count.
    """
    if not steps:
        return []
    first, sizes, acts = 0, [], []
    for layer in steps[0].layers:
        last = int(layer.name.split()[0])
        sizes.append(prod(model.layer_shapes[last]))
        acts.append(any(isinstance(part, _ACTING) for part in model.layers[first : last + 1]))
        first = last + 1
    if not any(acts):
        acts = [True] * (len(acts) - 1) + [len(acts) == 1]
    return [size * act for size, act in zip(sizes, acts, strict=True)]

"""Some trainings can be done, but are hardly what was meant: these are the doubts about them.

Conditions are such that they are all but surely wrong; what is merely unusual passes without a word.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.data import Dataset
from dist_relu.data.rows import Rows
from dist_relu.engine.plan import StepPlan
from dist_relu.engine.results import FitResult
from dist_relu.nn import (
    BatchNorm,
    Conv2d,
    CrossEntropy,
    Embedding,
    Flatten,
    FromNCHW,
    LayerNorm,
    Loss,
    Reshape,
    Sequential,
    Standardize,
)

_SEEN_ELEMENTS = 1 << 18
_LARGE = 10.0
"""The root mean square of inputs that learning rates and initial weights are not made for."""

_LARGEST_KERNEL = 11
"""Above it the number of filters may have been meant, with the size of the kernel behind it."""

_SAMPLES_PER_CLASS = 10
_TIMES_ITS_START = 10.0
_TIMES_ITS_START_MEANWHILE = 1000.0
_STEPS_TO_LEARN = 100
_NEARLY_ALL = 0.9
"""The share of a class that is a fair answer without a look at the sample."""


def doubts_of_data(model: Sequential, data: Dataset, batch_size: int) -> Iterator[str]:
    """Say what of samples and targets does not look as meant."""
    if batch_size > len(data):
        yield (
            f"batch_size={batch_size} is larger than the data set of {len(data)} samples, so that every epoch is a "
            "single step with all of them."
        )
    with np.errstate(over="ignore"):  # what is too large for the model's type is refused elsewhere
        size = float(np.sqrt(np.mean(np.square(_some(data.rows), dtype=np.float64))))
    if _LARGE < size < inf and _feels_scale(model):
        yield (
            f"The samples are large: their root mean square is {size:.4g}, and models learn from inputs of about -1 to "
            "1. Scale them first, such as x / 255 for bytes, or (x - x.mean(axis=0)) / x.std(axis=0)."
        )
    yield from _doubts_of_layers(model)
    if data.has_classes:
        yield from _doubts_of_labels(data.y)


def doubts_of_result(result: FitResult, data: Dataset, plan: StepPlan) -> Iterator[str]:
    """Say whether a training has learned nothing, or forgotten it on its way."""
    first, last = result.losses[0], result.epochs[-1].loss
    is_weighted = data.weights is not None or plan.class_weight is not None or plan.sampler is not None
    highest = max(result.epochs, key=lambda epoch: epoch.loss)
    if last > _TIMES_ITS_START * first and last > first + 1:
        yield f"The loss has grown from {first:.4g} to {last:.4g}. Lower the learning rate, or scale the samples."
    elif highest.loss > _TIMES_ITS_START_MEANWHILE * first and highest.loss > first + 1:
        yield (
            f"The loss rose from {first:.4g} to {highest.loss:.4g} in epoch {highest.epoch + 1}, and ended at "
            f"{last:.4g}. Lower the learning rate, warm it up, or scale the samples."
        )
    elif data.has_classes and not is_weighted and len(result.losses) >= _STEPS_TO_LEARN:
        yield from _doubts_of_accuracy(result, data, plan.loss)


def _doubts_of_accuracy(result: FitResult, data: Dataset, loss: Loss) -> Iterator[str]:
    """Say whether classes were told apart no better than by how common each one is."""
    shares = np.bincount(data.y) / len(data)
    commonest = shares.max()
    by_chance = commonest + 2 * np.sqrt(commonest * (1 - commonest) / len(data))
    accuracy = result.epochs[-1].accuracy
    at_the_end = float(np.mean(result.losses[-max(len(result.losses) // 10, 1) :]))
    blind = result.losses[0]
    if loss == CrossEntropy():
        occurring = shares[shares > 0]
        blind = min(blind, float(-(occurring * np.log(occurring)).sum()))
    if accuracy is not None and accuracy <= by_chance and commonest < _NEARLY_ALL and at_the_end >= 0.99 * blind:
        yield (
            f"Nothing was learned: the accuracy of {accuracy:.1%} in the last epoch is no better than always choosing "
            f"the commonest class ({commonest:.1%}), and the loss of {at_the_end:.4g} than knowing nothing of a "
            "sample. Try another learning rate."
        )


def _doubts_of_layers(model: Sequential) -> Iterator[str]:
    for number, (layer, shape) in enumerate(zip(model.layers, [model.input_shape, *model.layer_shapes], strict=False)):
        if not isinstance(layer, Conv2d) or (layer.channels, layer.stride) not in {(shape[-1], n) for n in (3, 5, 7)}:
            continue
        if isinstance(layer.kernel_size, int) and layer.kernel_size > _LARGEST_KERNEL:
            yield (
                f"Layer {number}: Conv2d({layer.channels}, {layer.kernel_size}, {layer.stride}) has {layer.channels} "
                f"filters of {layer.kernel_size}x{layer.kernel_size} with a stride of {layer.stride}. The number of "
                f"input channels is found out; perhaps you mean Conv2d({layer.kernel_size}, {layer.stride})."
            )


def _doubts_of_labels(y: Array) -> Iterator[str]:
    present = len(np.unique(y))
    if len(y) < _SAMPLES_PER_CLASS * present:
        return
    num_classes = int(y.max()) + 1
    if 2 * present < num_classes:
        yield (
            f"The labels go up to {num_classes - 1}, but only {present} of these {num_classes} classes occur. Number "
            "them without gaps: np.unique(y, return_inverse=True)[1]."
        )
    elif present == num_classes - 1 and not (y == 0).any():
        yield "The labels begin with 1, so that class 0 never occurs. Classes count from 0: y - 1."


def _feels_scale(model: Sequential) -> bool:
    """Tell whether it matters to a model how large its inputs are."""
    first = next((layer for layer in model.layers if not isinstance(layer, Flatten | FromNCHW | Reshape)), None)
    return not isinstance(first, BatchNorm | Embedding | LayerNorm | Standardize)


def _some(x: Rows) -> Array:
    """Take samples from everywhere in x, so few that they are looked at in no time; of files the first ones."""
    every = min(max(x.size // _SEEN_ELEMENTS, 1), len(x))
    return x[::every] if isinstance(x.storage, np.ndarray) else x[: -(-len(x) // every)]

"""How much samples count and how often they are drawn, which is fixed before a run, from all of its data at once.

So it depends neither on batches nor on workers. N samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_choice, check_int, check_not_negative, optional, shown
from dist_relu.data import Dataset
from dist_relu.errors import DataError
from dist_relu.nn.losses.loss import UNWEIGHTED
from dist_relu.partition import Purpose, epoch_order, generator

ClassWeight = Literal["balanced"] | Mapping[int, float]
Sampler = Literal["weighted", "balanced"]

DRAWN_ONCE = np.empty(0)
"""In place of chances, where every sample comes once in an epoch."""


def check_class_weight(class_weight: Any, data: Dataset) -> ClassWeight | None:
    """Return what `class_weight` says, with Python's own numbers, sorted by class.

    Raises TypeError, ValueError, and `DataError` where data have no such classes.
    """
    if class_weight is None:
        return None
    if not data.has_classes:
        raise DataError(
            f"{shown('class_weight', class_weight)} is for class numbers, but the targets are {data.y.dtype} of shape "
            f"{data.y.shape}. Weigh samples with Dataset(weights=...), labels with BinaryCrossEntropy(pos_weight=...)."
        )
    if not isinstance(class_weight, Mapping):
        check_choice("class_weight", class_weight, ["balanced"])
        return "balanced"
    present = set(np.unique(data.y).tolist())
    weights = {
        check_int("class_weight", number, 0): check_not_negative(f"class_weight[{number}]", weight)
        for number, weight in class_weight.items()
    }
    if unknown := sorted(weights.keys() - present):
        raise DataError(
            f"class_weight has a weight for class {unknown[0]}, which no sample has; there are "
            f"{len(present)} classes from {min(present)} to {max(present)}."
        )
    if not _weights(data, weights).any():
        raise DataError("class_weight leaves no sample that counts; expected a weight above 0 for one of them.")
    return dict(sorted(weights.items()))


def check_sampler(sampler: Any, data: Dataset, class_weight: ClassWeight | None, *, shuffle: bool) -> Sampler | None:
    """Return how samples are drawn.  Raises ValueError and `DataError` for what does not fit together."""
    optional(lambda name, value: check_choice(name, value, ["weighted", "balanced"]))("sampler", sampler)
    if sampler is None:
        return None
    if not shuffle:
        raise ValueError(f'sampler="{sampler}" draws samples at random, and shuffle=False keeps their order.')
    if sampler == "weighted" and data.weights is None and class_weight is None:
        raise DataError(
            'sampler="weighted" draws samples as often as their weights say, but they have none. Pass '
            "Dataset(x, y, weights=...) or class_weight."
        )
    if sampler == "balanced" and class_weight is not None:
        raise ValueError(
            'sampler="balanced" draws all classes equally often, so class_weight has no place beside it. With '
            'sampler="weighted" classes are drawn as often as class_weight says.'
        )
    if sampler == "balanced" and not data.has_classes:
        raise DataError(
            f'sampler="balanced" draws all classes equally often, but the targets are {data.y.dtype} of shape '
            f"{data.y.shape}; expected class numbers."
        )
    return "balanced" if sampler == "balanced" else "weighted"


def loss_weights(data: Dataset, class_weight: ClassWeight | None, sampler: Sampler | None) -> Array:
    """By what the loss of each sample is multiplied, (N,) float64 or `UNWEIGHTED`; each step divides by their mean.

    Samples that are drawn as often as their weights say do not count more besides.
    """
    return UNWEIGHTED if sampler else _weights(data, class_weight)


def chances(data: Dataset, class_weight: ClassWeight | None, sampler: Sampler | None) -> Array:
    """The chances of all samples up to each one, (N,) float64, in some unit; `DRAWN_ONCE` without a sampler."""
    if sampler is None:
        return DRAWN_ONCE
    weights = _weights(data, "balanced" if sampler == "balanced" else class_weight)
    return np.cumsum(weights)


def order_of_epoch(num_samples: int, seed: int, epoch: int, *, shuffle: bool, chances: Array) -> Array:
    """The samples of an epoch in their order, (num_samples,) int64.  chances: see above.

    Those with chances are drawn with replacement, as by PyTorch's WeightedRandomSampler.
    """
    if not len(chances):
        return epoch_order(num_samples, seed, epoch, shuffle=shuffle)
    points = generator(seed, Purpose.DRAWN_SAMPLES, epoch).random(num_samples) * chances[-1]
    by_size = np.argsort(points)  # one after another, they are looked up where the last one was found
    drawn = np.empty(num_samples, np.int64)
    drawn[by_size] = chances.searchsorted(points[by_size], side="right")  # a sample of weight 0 has no points
    return drawn


def _weights(data: Dataset, class_weight: ClassWeight | None) -> Array:
    """The weights of samples times those of their classes."""
    if class_weight is None:
        return UNWEIGHTED if data.weights is None else data.weights
    weights = np.ones(len(data)) if data.weights is None else data.weights
    return weights * _of_classes(data.y, weights, class_weight)[data.y]


def _of_classes(y: Array, weights: Array, class_weight: ClassWeight) -> Array:
    """The weight of each class, (classes,).

    "balanced" is N / (number of classes · samples of the class), as in scikit-learn, where a sample of weight w counts
    as w samples.
    """
    if isinstance(class_weight, Mapping):
        of_classes = np.ones(int(y.max()) + 1)
        of_classes[list(class_weight)] = list(class_weight.values())
        return of_classes
    sizes = np.bincount(y, weights)
    present = sizes > 0
    of_classes = np.zeros(len(sizes))
    of_classes[present] = sizes.sum() / (np.count_nonzero(present) * sizes[present])
    return of_classes

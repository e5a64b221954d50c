"""What users pass to the coordinator is checked here, and brought into the form that we work with."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

from dist_relu.core.array_checks import check_numbers
from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_is
from dist_relu.data import Augment, Dataset, Split
from dist_relu.data.augment import ImageShape
from dist_relu.data.rows import Rows
from dist_relu.errors import DataError, DataWarning, PartitionError
from dist_relu.nn import (
    BatchNorm,
    BinaryCrossEntropy,
    CrossEntropy,
    Embedding,
    Focal,
    FromNCHW,
    Huber,
    Loss,
    MeanAbsoluteError,
    MeanSquaredError,
    Sequential,
)
from dist_relu.nn.sequential import Predicts
from dist_relu.nn.structure import entries, every_layer

Data = Dataset | tuple[npt.ArrayLike, npt.ArrayLike] | tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike | None]
"""A data set, or (x, y), or (x, y, weights)."""

UNUSUAL_LOSSES = BinaryCrossEntropy, Focal, Huber, MeanAbsoluteError
"""What is told by targets alone is not kept with a model: which loss it is tested with."""


def dataset_of(data: Data, name: str = "data") -> Dataset:
    """Return a data set as it is, and (x, y) or (x, y, weights) as one.  name: of the argument."""
    if isinstance(data, Dataset):
        return data
    if isinstance(data, Split):
        raise TypeError(f"Expected a Dataset as {name}, not both parts of one: pass data.train or data.test.")
    if isinstance(data, tuple | list) and len(data) in (2, 3):
        x, y, *rest = data
        return Dataset(x, y, weights=rest[0] if rest else None)  # which it checks
    raise TypeError(f"Expected a Dataset or (x, y) as {name}, not {type(data).__name__}.")


def numbers(name: str, value: npt.ArrayLike) -> Array:
    """Return `value` as an array of numbers that kernels can work on: True and False are 1 and 0."""
    array = check_numbers(name, value)
    return array.view(np.uint8) if array.dtype == np.bool_ else array


def in_classes_to_train(model: Sequential, data: Dataset) -> Dataset:
    """Return the data with the class numbers that the model has for these names; where it knows them all."""
    known = model.classes is not None and set(data.classes or ()) <= set(model.classes)
    return data.in_classes(model.classes) if known else data


def default_loss(data: Dataset) -> Loss:
    """Choose cross-entropy for class numbers, the mean squared error for real targets."""
    return CrossEntropy() if data.has_classes else MeanSquaredError()


def predicts(data: Dataset, loss: Loss) -> Predicts:
    """Tell what a model learns from targets with a loss: classes, labels that are there or not, or numbers."""
    if data.has_classes:
        return "classes"
    return "labels" if isinstance(loss, BinaryCrossEntropy | Focal) else "numbers"


def loss_for(data: Dataset, loss: Loss | None) -> Loss:
    """Return the loss that the user passed, or the default one for such targets."""
    loss = default_loss(data) if loss is None else loss
    check_is("loss", loss, Loss)
    return loss


def warn_of_classes(data: Dataset) -> None:
    """Say that targets are taken for real numbers, where they look like classes."""
    reason = data.look_like_classes()
    if reason is not None:
        warnings.warn(
            f"y is of type {data.y.dtype}, so it is taken for real targets, with the mean squared error. It has "
            f"{reason}. To take it as it is, pass loss=nn.MeanSquaredError().",
            DataWarning,
            stacklevel=3,
        )


def check_model(model: Sequential, data: Dataset, loss: Loss) -> Sequential:
    """Raise an error unless the model takes such samples and gives such targets; leaves the model as it is.

    Returns the model, or a copy of it, built for them.
    """
    check_is("model", model, Sequential)
    model = model if model.is_built else model.blueprint()
    model.build(data.sample_shape)
    loss.check(data.y, model.output_shape)
    check_samples(model, data.rows)
    return model


def check_samples(model: Sequential, x: Array | Rows) -> None:
    """Raise `DataError` where the model looks up symbols and x (N, ...) holds none: all of it is read for that."""
    for layer, shape in entries(model.layers, x.shape[1:]):
        if isinstance(layer, Embedding):
            for block in x.blocks() if isinstance(x, Rows) and x.array is None else [np.asarray(x)]:
                layer.check_symbols(block.reshape(len(block), *shape), model.dtype)


def check_augment(augment: Augment, model: Sequential, data: Dataset) -> ImageShape | None:
    """Raise `DataError` unless samples for this model can be changed so; returns the shape of their images, or None."""
    first = list(entries(model.layers, data.sample_shape))
    if augment.mixup and any(isinstance(layer, Embedding) for layer, _ in first):
        raise DataError(
            f"Augment(mixup={augment.mixup}) averages samples, but the model looks them up as symbols (Embedding), of "
            "which there is no average."
        )
    return augment.image_shape(data, next((shape for layer, shape in first if isinstance(layer, FromNCHW)), None))


def check_statistics(model: Sequential, num_samples: int, batch_size: int, shards: int) -> None:
    """Raise `PartitionError` when BatchNorm meets a single element of each channel: it has no variance.

    That is so in a batch of less than two samples for each shard, or for all, as its scope is. model: built.
    """
    norms = [layer for layer in every_layer(model.layers) if isinstance(layer, BatchNorm)]
    norms = [norm for norm in norms if norm.elements_per_sample == 1]
    if not norms:
        return
    by_shard = any(norm.scope == "shard" for norm in norms)
    least, last = 2 * (shards if by_shard else 1), num_samples % batch_size or batch_size
    smallest = min(batch_size, last)
    if smallest >= least:
        return
    sizes = (size for size in range(batch_size + 1, num_samples + 1) if size >= least)
    larger = next((size for size in sizes if not 0 < num_samples % size < least), None)
    ways = [f"batch_size={larger}"] * (larger is not None)
    if by_shard and smallest > 1:
        ways = [f"shards <= {smallest // 2}", *ways, 'BatchNorm(scope="batch")']
    samples = f"{smallest} {'sample' if smallest == 1 else 'samples'}"
    raise PartitionError(
        f"BatchNorm takes the variance over {'each shard' if by_shard else 'the batch'}, and one sample has none: "
        f"{'a batch' if batch_size < least else 'the last batch of an epoch'} has {samples}"
        f"{f' for {shards} shards' if by_shard else ''}; expected at least {least}. "
        f"Pass {' or '.join(ways) or 'more samples'}."
    )


def check_has_parameters(model: Sequential) -> None:
    """Raise ValueError for a model that was never fitted or initialised."""
    check_is("model", model, Sequential)
    if not model.has_values:
        raise ValueError("The model has no parameters yet: fit it first, or build and initialize it.")


def checked_samples(model: Sequential, x: npt.ArrayLike | Rows) -> Array | Rows:
    """Return `x` as an array or rows (N, *input_shape) for a model that has parameters.

    Raises ValueError or DataError.
    """
    check_has_parameters(model)
    x = x if isinstance(x, Rows) else numbers("x", x)
    model.build(x.shape[1:])
    check_samples(model, x)
    return x


def samples_to_measure(model: Sequential, x: npt.ArrayLike | Rows) -> Array | Rows:
    """Return `x` as `checked_samples` does, of at least one sample."""
    x = checked_samples(model, x)
    if not len(x):
        raise DataError("x has no samples; there is nothing to measure.")
    return x

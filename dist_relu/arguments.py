"""What users pass to the coordinator, checked and in the form that we work with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dist_relu.arrays import Array
from dist_relu.checks import check_is
from dist_relu.data import Dataset, Split
from dist_relu.errors import DataError
from dist_relu.nn import CrossEntropy, Loss, MeanSquaredError, Sequential

Data = Dataset | tuple[npt.ArrayLike, npt.ArrayLike]


def dataset_of(data: Data) -> Dataset:
    """A data set, or (x, y), as a data set."""
    if isinstance(data, Dataset):
        return data
    if isinstance(data, Split):
        raise TypeError("Expected a Dataset as data, not both parts of one: pass data.train or data.test.")
    if isinstance(data, tuple | list) and len(data) == 2:
        return Dataset(np.asarray(data[0]), np.asarray(data[1]))
    raise TypeError(f"Expected a Dataset or (x, y) as data, not {type(data).__name__}.")


def numbers(name: str, value: npt.ArrayLike) -> Array:
    """`value` as an array of numbers that kernels can work on, in native byte order."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiu" or array.dtype == np.float16 or array.dtype.itemsize > 8:
        raise DataError(f"{name} has dtype {array.dtype}; expected float32, float64 or integers.")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def default_loss(data: Dataset) -> Loss:
    """Cross-entropy for class numbers, the mean squared error for real targets."""
    return CrossEntropy() if data.has_classes else MeanSquaredError()


def check_model(model: Sequential, data: Dataset, loss: Loss) -> None:
    """Raise an error unless the model takes such samples and gives such targets; leaves the model as it is."""
    check_is("model", model, Sequential)
    model = model if model.input_shape else model.blueprint()
    model.build(data.x.shape[1:])
    loss.check(data.y, model.output_shape)


def check_has_parameters(model: Sequential) -> None:
    """Raise ValueError for a model that was never fitted or initialised."""
    check_is("model", model, Sequential)
    if model.values is None:
        raise ValueError("The model has no parameters yet: fit it first, or build and initialize it.")

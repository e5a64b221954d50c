"""Models that normalise their samples themselves, by numbers that were taken from a data set."""

from __future__ import annotations

from itertools import takewhile
from math import prod
from typing import Literal, get_args

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_is, one_of
from dist_relu.data import Dataset
from dist_relu.data.moments import moments_of
from dist_relu.errors import DataError
from dist_relu.nn import Embedding, FromNCHW, Layer, Reshape, Sequential, Standardize
from dist_relu.nn.structure import entries

How = Literal["standard", "minmax", "images"]


def normalized(model: Sequential, data: Dataset, how: How = "standard") -> Sequential:
    """Return a model that first normalises samples, by what those of `data` are, and then is `model`.

    how: "standard": every number of a sample has mean 0 and variance 1 over the data set, as scikit-learn's
    StandardScaler makes them. "minmax": the least becomes 0 and the largest 1, as of MinMaxScaler. "images": every
    channel has mean 0 and variance 1.
    What is the same everywhere becomes 0. Pass the samples that are trained on, not those to test with: the numbers are
    those of `data`, stay with the model as a layer `Standardize`, and are saved with it, so that whoever predicts with
    it does the same. They come from exact sums over all samples as float32, so they don't depend on how these are
    stored. Parameters are those of `model`, which keeps its own.

    Raises ValueError for a model that looks samples up as symbols, and `DataError` where "images" are none.
    """
    check_is("model", model, Sequential)
    check_is("data", data, Dataset)
    how = one_of(*get_args(How))("how", how)
    shape = data.sample_shape
    if any(isinstance(layer, Embedding) for layer, _ in entries(model.layers, shape)):
        raise ValueError("the model looks samples up as symbols (Embedding), which have no scale.")
    front: list[Layer] = []
    if how == "images":  # as the layers see them that compute
        front = list(takewhile(lambda layer: isinstance(layer, Reshape | FromNCHW), model.blueprint().layers))
    reshaped = Sequential(*front, dtype=np.float32).build(shape) if front else None
    image = reshaped.output_shape if reshaped else shape
    num_channels = _num_channels(data, image) if how == "images" else prod(shape)

    def in_columns(block: Array) -> Array:
        return (reshaped.forward(block) if reshaped else block).reshape(-1, num_channels)

    moments = moments_of(data.rows, in_columns)
    origin, unit = moments.mean, moments.deviation
    if how == "minmax":
        origin, unit = moments.least, moments.most - moments.least
    is_constant = moments.least == moments.most
    origin, unit = np.where(is_constant, moments.least, origin), np.where(is_constant, 1.0, unit)
    layer = Standardize(origin.tolist(), unit.tolist())
    layers = model.blueprint().layers
    changed = Sequential(*layers[: len(front)], layer, *layers[len(front) :], dtype=model.dtype)
    if model.has_values:
        changed.build(model.input_shape).bind(model.values.copy())
    return changed


def _num_channels(data: Dataset, shape: tuple[int, ...]) -> int:
    """How many channels images have.  shape: of samples, as the model has reshaped them."""
    if len(shape) == 3:
        return shape[-1]
    if data.image_shape is not None:
        return data.image_shape[-1]
    raise DataError(
        f"samples of shape {shape} are no images, of which the channels could be known; expected (height, width, "
        'channels), or Dataset(x, y, image_shape=...). For others take "standard".'
    )

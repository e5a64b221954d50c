"""Models by name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dist_relu.nn.activations import ReLU
from dist_relu.nn.convolution import Conv2d
from dist_relu.nn.dense import Dense
from dist_relu.nn.layer import Layer, Shape
from dist_relu.nn.pooling import MaxPool2d
from dist_relu.nn.reshaping import Flatten, Reshape
from dist_relu.nn.sequential import Sequential


def mlp(hidden: Sequence[int], outputs: int, dtype: npt.DTypeLike = np.float32) -> Sequential:
    """Dense layers with ReLU between them: `hidden` units each, then `outputs` without ReLU."""
    layers: list[Layer] = []
    for units in hidden:
        layers += [Dense(units), ReLU()]
    return Sequential(*layers, Dense(outputs), dtype=dtype)


def cnn(image_shape: Shape, outputs: int, dtype: npt.DTypeLike = np.float32) -> Sequential:
    """A small network for images of `image_shape` (H, W, C) in flat rows: two convolutions with pooling, two dense."""
    return Sequential(
        Reshape(image_shape),
        Conv2d(32, 3),
        ReLU(),
        MaxPool2d(2),
        Conv2d(64, 3),
        ReLU(),
        MaxPool2d(2),
        Flatten(),
        Dense(128),
        ReLU(),
        Dense(outputs),
        dtype=dtype,
    )

"""Models by name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dist_relu.nn.activations import ReLU
from dist_relu.nn.dense import Dense
from dist_relu.nn.layer import Layer
from dist_relu.nn.sequential import Sequential


def mlp(hidden: Sequence[int], outputs: int, dtype: npt.DTypeLike = np.float32) -> Sequential:
    """Dense layers with ReLU between them: `hidden` units each, then `outputs` without ReLU."""
    layers: list[Layer] = []
    for units in hidden:
        layers += [Dense(units), ReLU()]
    return Sequential(*layers, Dense(outputs), dtype=dtype)

"""Layer-sequential unit variance: initial weights that are fitted to data."""

from __future__ import annotations

from math import sqrt

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_is
from dist_relu.nn.boundary import array_of
from dist_relu.nn.layer import Layer, Param
from dist_relu.nn.sequential import Sequential

_TOLERANCE = 0.01
_MAX_ROUNDS = 10


def lsuv(model: Sequential, x: Array) -> Sequential:
    """Rescale the weights of an initialised model, layer by layer, until each layer's outputs have unit variance.

    x: (N, *input_shape), a batch that stands for the data.  A layer with no weight, or with several (parameters of two
    dimensions and more), is left alone. The paper begins with `Orthogonal` weights.  Returns the model itself.

    Raises ValueError for a model without parameters, and when a layer's outputs don't vary at all or overflow.
    Mishkin and Matas (2016), algorithm 1.
    """
    check_is("model", model, Sequential)
    if not model.has_values:
        raise ValueError("The model has no parameters yet: build and initialize it first.")
    outputs = array_of("The model", "x", x, model.dtype, None, model.input_shape)
    for number, layer in enumerate(model.layers):
        weights = [param for param in layer.params() if len(param.shape) > 1]
        if len(weights) == 1:
            _rescale(number, layer, weights[0], outputs)
        outputs = layer.forward(outputs)
    return model


def _rescale(number: int, layer: Layer, weight: Param, inputs: Array) -> None:
    for _ in range(_MAX_ROUNDS):  # one is enough where outputs are linear in the weight
        variance = float(np.var(layer.forward(inputs), dtype=np.float64))
        if not 0 < variance < np.inf:
            raise ValueError(f"Layer {number}: its outputs on these samples have variance {variance}; can't rescale.")
        if abs(variance - 1) < _TOLERANCE:
            break
        weight.value /= sqrt(variance)

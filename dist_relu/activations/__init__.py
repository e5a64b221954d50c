"""Activation functions of arrays, and their derivatives.

    y = activations.leaky_relu(x, negative_slope=0.1)
    dy_dx = activations.derivative("leaky_relu", x, negative_slope=0.1)
    y, dy_dx = activations.value_and_derivative("leaky_relu", x, negative_slope=0.1)

Every function takes an array of float32 or float64, of any shape and memory layout, and returns a new one of the same
dtype; other dtypes raise TypeError. Names, arguments and defaults are those of `torch.nn.functional` where it has the
function. NaN goes through, infinities give limits, nothing overflows on the way. At a kink the slope is the one that
PyTorch takes; each function says what it is there, and at NaN.
"""

from __future__ import annotations

from dist_relu.activations.derivatives import derivative, value_and_derivative
from dist_relu.activations.functions import (
    celu,
    crelu,
    elu,
    gelu,
    glu,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    log_softmax,
    mish,
    prelu,
    reglu,
    relu,
    relu6,
    rrelu,
    selu,
    sigmoid,
    silu,
    softmax,
    softplus,
    squared_relu,
    swiglu,
    tanh,
    threshold,
)

__all__ = [
    "celu",
    "crelu",
    "derivative",
    "elu",
    "gelu",
    "glu",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "leaky_relu",
    "log_softmax",
    "mish",
    "prelu",
    "reglu",
    "relu",
    "relu6",
    "rrelu",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "squared_relu",
    "swiglu",
    "tanh",
    "threshold",
    "value_and_derivative",
]

"""Models with parameters that are none of their first ones, for programs that compute with them elsewhere."""

from __future__ import annotations

import numpy as np

from dist_relu import nn
from tests.test_checkpoint import MODELS
from tests.twin import Array

OF_LAYERS = [*MODELS, ((nn.RNN(5, activation=nn.GELU()), nn.Dense(2)), (4, 3))]
"""Every layer stands in one of these."""

OF_MODELS = {
    "mlp": lambda: nn.mlp([12, 8], 4).build((6,)),
    "actor": lambda: nn.actor([8], 3).build((5,)),
    "policy": lambda: nn.policy(5, 3, [8]),
    "policy, tanh-gaussian": lambda: nn.policy(5, 2, [8], "tanh-gaussian", low=[-1, -2], high=2),
    "cnn": lambda: nn.cnn((12, 12, 1), 10).build((144,)),
    "resnet": lambda: nn.resnet(8, (9, 9, 3), 5).build((243,)),
    "rnn": lambda: nn.rnn(6, 4, (5, 3)).build((15,)),
}
"""All of `nn.models`."""


def of_layers(number: int, dtype: str) -> nn.Sequential:
    layers, shape = OF_LAYERS[number]
    return with_numbers(nn.Sequential(*nn.Sequential(*layers).blueprint().layers, dtype=dtype).build(shape))


def of_models(name: str) -> nn.Sequential:
    return with_numbers(OF_MODELS[name]())


def with_numbers(model: nn.Sequential) -> nn.Sequential:
    """The model, with biases and running statistics as training would leave them."""
    rng = np.random.default_rng(5)
    model.initialize(3)
    model.values += rng.normal(0, 0.1, model.num_params).astype(model.dtype)
    for name, view in zip(model.names, model.views(model.values), strict=True):
        if name.endswith("running_variance"):
            view[...] = np.abs(view) + 0.1
    return model


def samples(model: nn.Sequential, num: int = 5) -> Array:
    rng = np.random.default_rng(7)
    shape = (num, *model.input_shape)
    if isinstance(model.layers[0], nn.Embedding):
        return rng.integers(model.layers[0].symbols, size=shape).astype(model.dtype)
    return rng.standard_normal(shape).astype(model.dtype)

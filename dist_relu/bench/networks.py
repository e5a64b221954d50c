"""The cases of comparisons as networks of ours, and what their steps compute."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np

from dist_relu import nn
from dist_relu.bench.cases import Beginning, Case
from dist_relu.data import Dataset
from dist_relu.kernels.winograd import NUM_PRODUCTS
from dist_relu.kernels.winograd_transforms import TILE


def network(case: Case) -> nn.Sequential:
    """Build the network of a case, with the parameters that all sides begin with."""
    models = {
        "mlp": lambda: nn.mlp(case.sizes, case.outputs),
        "cnn": lambda: nn.cnn(case.input_shape, case.outputs),
        "strided": lambda: strided(case.input_shape, case.sizes, case.outputs),
        "resnet": lambda: nn.resnet(case.sizes[0], case.input_shape, case.outputs),
        "rnn": lambda: nn.rnn(case.sizes[0], case.outputs),
    }
    is_flat = len(case.input_shape) == 3
    shape = (prod(case.input_shape),) if is_flat else case.input_shape
    return models[case.kind]().build(shape).initialize(0)


def dataset(case: Case) -> Dataset:
    """Draw the samples of a case, as our networks take them."""
    x, y = case.samples()
    return Dataset(x.reshape(len(x), -1) if x.ndim == 4 else x, y)


def beginning(case: Case, path: Path) -> Beginning:
    """Write the parameters of a case that are trained into a file."""
    params = [param for param in network(case).params if param.momentum is None]
    np.save(path, np.concatenate([param.value.reshape(-1) for param in params]))
    return Beginning(path, [param.value.shape for param in params])


def flops(case: Case) -> int:
    """Count the floating-point operations of a step's products: forward, by weights, and by inputs but the data.

    Where we convolve by Winograd's way, those that it takes.
    """
    terms = [case.batch_size * number for number in _terms(network(case).layers, case.input_shape[0])]
    return 2 * (3 * sum(terms) - terms[0])


def _terms(layers: Sequence[nn.Layer], steps: int) -> list[int]:
    """Count the multiply-adds of each product on the way forward, for one sample.  steps: of a sequence."""
    terms = []
    for layer in layers:
        match layer:
            case nn.Dense():
                terms.append(layer.weight.value.size)
            case nn.Conv2d(is_winograd=True):
                down, across = (-(-size // TILE) for size in layer.output_shape[:2])
                terms.append(prod(layer.weight.value.shape[2:]) * NUM_PRODUCTS * down * across)
            case nn.Conv2d():
                terms.append(layer.weight.value.size * layer.output_shape[0] * layer.output_shape[1])
            case nn.RNN():
                terms += [layer.weight.value.size * steps, layer.recurrent.value.size * steps]
            case nn.Residual():
                terms += [*_terms(layer.body, steps), *_terms(layer.shortcut, steps)]
    return terms


def strided(image_shape: tuple[int, ...], filters: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Convolutions of 5x5 with a stride of 2 and ReLU behind them, and a dense layer."""
    layers: list[nn.Layer] = [nn.Reshape(image_shape)]
    for number in filters:
        layers += [nn.Conv2d(number, 5, stride=2, padding=2), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dense(outputs))

"""What is trained in comparisons: networks, and the batches of random samples that they are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from dist_relu import nn
from dist_relu.core.arrays import Array
from dist_relu.kernels.winograd import NUM_PRODUCTS
from dist_relu.kernels.winograd_transforms import TILE

LR, MOMENTUM = 1e-4, 0.9

_EPOCH_BYTES = 4_000_000
"""As many batches as that make an epoch, so that they don't all stay in the second-level cache."""


@dataclass(frozen=True)
class Case:
    """A network by the kind of it and its sizes, and the shape of a batch of its inputs; images are (H, W, C)."""

    name: str
    kind: str
    sizes: tuple[int, ...]
    batch_size: int
    input_shape: tuple[int, ...]
    outputs: int = 10

    @property
    def num_batches(self) -> int:
        """How many batches there are in an epoch, one behind the other."""
        return int(np.clip(_EPOCH_BYTES // (4 * self.batch_size * np.prod(self.input_shape)), 4, 256))

    def samples(self) -> tuple[Array, Array]:
        """Draw the samples of an epoch, (N, *input_shape), and their classes."""
        rng, number = np.random.default_rng(0), self.num_batches * self.batch_size
        return rng.standard_normal((number, *self.input_shape), np.float32), rng.integers(0, self.outputs, number)

    def model(self) -> nn.Sequential:
        """Build the network of ours, with the parameters that all sides begin with."""
        models = {
            "mlp": lambda: nn.mlp(self.sizes, self.outputs),
            "cnn": lambda: nn.cnn(self.input_shape, self.outputs),
            "strided": lambda: strided(self.input_shape, self.sizes, self.outputs),
            "resnet": lambda: nn.resnet(self.sizes[0], self.input_shape, self.outputs),
            "rnn": lambda: nn.rnn(self.sizes[0], self.outputs),
        }
        flat = len(self.input_shape) == 3
        shape = (int(np.prod(self.input_shape)),) if flat else self.input_shape
        return models[self.kind]().build(shape).initialize(0)

    def parameters(self) -> list[Array]:
        """Return what the sides begin with: the parameters of `model` that are trained, in their order."""
        return [param.value.copy() for param in self.model().params if param.momentum is None]

    def flops(self) -> int:
        """Count the floating-point operations of a step's products: forward, by weights, and by inputs but the data.

        Where we convolve by Winograd's way, those that it takes.
        """
        terms = [self.batch_size * number for number in _terms(self.model().layers, self.input_shape[0])]
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


def _images(name: str, kind: str, sizes: tuple[int, ...], *shape: int) -> Case:
    return Case(name, kind, sizes, 64, shape)


CASES = [
    Case("mlp-tiny", "mlp", (64, 32, 16), 64, (784,)),
    Case("mlp-small", "mlp", (256, 128), 128, (784,)),
    Case("mlp-medium", "mlp", (1024, 1024), 256, (784,)),
    Case("mlp-large", "mlp", (4096, 4096, 1024), 512, (1024,)),
    _images("cnn-mnist", "cnn", (32, 64, 128), 28, 28, 1),
    _images("cnn-cifar", "cnn", (32, 64, 128), 32, 32, 3),
    _images("resnet-8", "resnet", (8,), 32, 32, 3),
    Case("rnn", "rnn", (128,), 64, (64, 32)),
    Case("policy-1", "mlp", (64, 64), 1, (4,), 2),
    Case("policy-64", "mlp", (64, 64), 64, (4,), 2),
    Case("small-50", "mlp", (256, 128), 50, (784,)),
    Case("small-192", "mlp", (256, 128), 192, (784,)),
    Case("mlp-1000", "mlp", (100, 100), 64, (30,), 1000),
    Case("mlp-deep", "mlp", (64,) * 8, 64, (784,)),
    _images("cnn-5x5", "strided", (48, 48), 32, 32, 3),
    Case("rnn-200", "rnn", (200,), 64, (64, 32)),
]
"""The last six have shapes that are not round."""

ON_SEVERAL_CORES = ["mlp-tiny", "mlp-small", "mlp-medium", "mlp-large", "cnn-mnist"]
"""The names of those that are compared on several cores by default."""

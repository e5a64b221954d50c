"""What is trained in comparisons: networks, and the batches of random samples that they are trained on.

Processes of other libraries import this, too: it must not bring any of ours but NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dist_relu.core.arrays import Array

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


@dataclass(frozen=True)
class Beginning:
    """The numbers that all sides begin with, in a file of float32.  shapes: of the parameters, in their order."""

    path: Path
    shapes: Sequence[tuple[int, ...]]

    def parameters(self) -> list[Array]:
        """Map the file into memory; what is written there stays in this process."""
        numbers = np.load(self.path, mmap_mode="c")
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])
        parts = np.split(numbers, ends[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]


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

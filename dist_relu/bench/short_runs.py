"""Short trainings of networks of several sizes, of which something can be learned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dist_relu.data import Dataset


@dataclass(frozen=True)
class Case:
    """A model and the batch that it is trained on."""

    name: str
    inputs: int
    hidden: tuple[int, ...]
    batch_size: int
    steps: int

    def data(self) -> Dataset:
        """Draw the samples of an epoch, of which something can be learned: runs that learn nothing warn of that."""
        rng, number = np.random.default_rng(0), self.batch_size * self.steps
        x, y = rng.standard_normal((number, self.inputs), np.float32), rng.integers(0, 10, number)
        x[np.arange(number), y] += 5
        return Dataset(x, y)


CASES = [
    Case("mlp-tiny", 784, (64, 32, 16), 64, 400),
    Case("mlp-small", 784, (256, 128), 128, 200),
    Case("mlp-medium", 784, (1024, 1024), 256, 40),
]

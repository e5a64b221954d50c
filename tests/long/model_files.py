"""Python files with a model, damaged.  What they do is harmless, and so is what becomes of it."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from dist_relu.cli.model_file import model_from_file
from dist_relu.nn import Sequential
from tests.long.harness import check_refused, mutate_bytes

_SOURCE = '''\
"""A model with a layer of its own."""

from dataclasses import dataclass

import numpy as np

from dist_relu import nn

WIDTHS = (32, 16)


@dataclass(eq=False)
class Scale(nn.Layer):
    factor: float = 2.0

    def build(self, input_shape):
        return input_shape

    def params(self):
        return []

    def forward(self, x, run=nn.PLAIN):
        return np.multiply(x, self.factor, out=run.empty(x.shape, x.dtype))

    def backward(self, dy, run=nn.PLAIN, *, wants_dx=True):
        return np.multiply(dy, self.factor, out=run.empty(dy.shape, dy.dtype))


def net():
    hidden = [layer for units in WIDTHS for layer in (nn.Dense(units), nn.ReLU())]
    return nn.Sequential(*hidden, Scale(0.5), nn.Dense(10))
'''


def prepare(folder: Path) -> Path:
    return folder / "net.py"


def attempt(path: Path, rng: np.random.Generator) -> None:
    text = _SOURCE.encode()
    path.write_bytes(_without_words(rng, text) if rng.random() < 0.3 else mutate_bytes(rng, text))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's, of what is odd in the source
        model = check_refused(lambda: model_from_file(path, "net", "float32"), ValueError)
    assert model is None or isinstance(model, Sequential)


def _without_words(rng: np.random.Generator, text: bytes) -> bytes:
    """With words taken out, doubled or exchanged."""
    words = text.split(b" ")
    first, second = (int(number) for number in rng.integers(len(words), size=2))
    match int(rng.integers(3)):
        case 0:
            del words[first]
        case 1:
            words.insert(first, words[second])
        case _:
            words[first], words[second] = words[second], words[first]
    return b" ".join(words)

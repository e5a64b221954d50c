"""A network whose samples are two numbers can be asked about the whole plane."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dist_relu.activations import softmax
from dist_relu.coordinator import Coordinator
from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_is, check_seed
from dist_relu.data import Dataset, Split
from dist_relu.errors import DataError
from dist_relu.nn import ReLU, Sequential
from dist_relu.nn.structure import layer_names
from dist_relu.optim import Adam, Cosine

_SIDE = 301
_NUM_TRAIN, _NUM_TEST = 400, 400
_EPOCHS = 200
PLANE_TRAINING = f"{_EPOCHS} epochs of Adam"
"""What `train_on_plane` does."""


@dataclass(frozen=True, kw_only=True)
class Plane:
    """G×G points of the plane, seen by a network with K classes, and the samples x (N, 2) that it learned from.

    across, up: (G,).  probabilities: (G, G, K).  kinks: by the name of each ReLU its inputs (G, G, units), which are 0
    at the kinks.  num_pieces: how many patterns of active units there are among the points; on the points with the
    same pattern the network is linear.  accuracy: on unseen samples.
    """

    x: Array
    y: Array
    across: Array
    up: Array
    probabilities: Array
    kinks: dict[str, Array]
    num_pieces: int
    accuracy: float


def check_plane(data: Split) -> None:
    """Raise DataError for samples that are not two numbers each, or have no classes."""
    check_is("data", data, Split)
    if data.train.sample_shape != (2,) or not data.train.has_classes:
        raise DataError(
            f"Samples have shape {data.train.sample_shape} and targets are {data.train.y.dtype}; expected samples of "
            "two numbers, (2,), and class numbers."
        )


def train_on_plane(coordinator: Coordinator, model: Sequential, data: Split, seed: int = 0) -> None:
    """Train a small network to the end, in place; the same bits on any number of workers."""
    check_is("coordinator", coordinator, Coordinator)
    check_is("data", data, Split)
    coordinator.fit(model, data.train, Adam(Cosine(0.01, _EPOCHS)), epochs=_EPOCHS, batch_size=32, seed=seed, shards=1)


def plane_of(coordinator: Coordinator, model: Sequential, data: Split) -> Plane:
    """Ask a trained network about points around its samples.

    Collective; the same bits on any number of workers. Raises DataError for samples that are not two numbers, or have
    no classes.
    """
    check_is("coordinator", coordinator, Coordinator)
    check_plane(data)
    train = data.train
    evaluation = coordinator.evaluate(model, data.test)
    assert evaluation.accuracy is not None
    margin = 0.15 * np.ptp(train.x, axis=0)
    across, up = np.linspace(train.x.min(axis=0) - margin, train.x.max(axis=0) + margin, _SIDE).T
    points = np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2)
    outputs = coordinator.activations(model, points)
    kinks = {
        name: outputs[number - 1].reshape(_SIDE, _SIDE, -1)
        for number, (name, layer) in enumerate(zip(layer_names(model), model.layers, strict=True))
        if isinstance(layer, ReLU) and number
    }
    num_pieces = 1
    if kinks:
        active = np.packbits(np.concatenate(list(kinks.values()), axis=-1) > 0, axis=-1)
        num_pieces = len(np.unique(active.reshape(_SIDE * _SIDE, -1), axis=0))
    logits = outputs[-1].astype(np.float64)
    if logits.shape[1] == 1:  # of class 1 alone, as with `BinaryCrossEntropy`
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    probabilities = softmax(logits).reshape(_SIDE, _SIDE, -1)
    return Plane(
        x=train.x,
        y=train.y,
        across=across,
        up=up,
        probabilities=probabilities,
        kinks=kinks,
        num_pieces=num_pieces,
        accuracy=evaluation.accuracy,
    )


def moons(seed: int = 0) -> Split:
    """Two half circles, one in the other's arms, with noise.  Raises DataError without scikit-learn."""
    try:
        from sklearn.datasets import make_moons
    except ImportError:
        raise DataError("The moons come from scikit-learn. Install it: pip install 'dist_relu[data]'.") from None
    except Exception as error:  # whatever is wrong with it
        raise DataError(f"The moons come from scikit-learn, which can't be imported: {error}.") from error
    seed = check_seed(seed)
    x, y = make_moons(_NUM_TRAIN + _NUM_TEST, noise=0.15, random_state=seed % 2**32)
    return _split(x, y)


def spirals(seed: int = 0) -> Split:
    """Two spirals, one in the other, with noise; after Lang and Witbrock (1988)."""
    rng = np.random.default_rng(check_seed(seed))
    y = rng.integers(0, 2, _NUM_TRAIN + _NUM_TEST)
    turn = np.sqrt(rng.uniform(0.02, 1, len(y)))
    angle = 3.5 * np.pi * turn + np.pi * y
    x = turn[:, np.newaxis] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return _split(x + rng.normal(0, 0.02, x.shape), y)


SETS: dict[str, Callable[[int], Split]] = {"moons": moons, "spirals": spirals}


def _split(x: Array, y: Array) -> Split:
    x = x.astype(np.float32)
    return Split(Dataset(x[:_NUM_TRAIN], y[:_NUM_TRAIN]), Dataset(x[_NUM_TRAIN:], y[_NUM_TRAIN:]))

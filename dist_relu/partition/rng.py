"""Random numbers as pure functions of a seed and of what they are drawn for."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from dist_relu.core.arrays import Array


class Purpose(IntEnum):
    """What random numbers are drawn for; each purpose has streams of its own."""

    INITIAL_WEIGHTS = 1
    EPOCH_ORDER = 2
    DATA_SPLIT = 3
    LAYERS = 4
    AUGMENTATION = 5
    SAMPLES = 6
    ENVIRONMENTS = 7
    ACTIONS = 8
    MINIBATCHES = 9
    DRAWN_SAMPLES = 10
    LOW_RANK = 11


def generator(seed: int, purpose: Purpose, *coordinates: int) -> np.random.Generator:
    """A generator that is a pure function of (seed, purpose, coordinates): at most three coordinates, each >= 0.

    Philox counts blocks of random bits in four words, of which we set the upper three, so no two streams meet.
    Salmon et al. (2011), "Parallel random numbers: as easy as 1, 2, 3".
    """
    counter = np.zeros(4, np.uint64)
    counter[1 : 1 + len(coordinates)] = coordinates
    return np.random.Generator(np.random.Philox(key=np.array([seed, purpose], np.uint64), counter=counter))


def epoch_order(num_samples: int, seed: int, epoch: int, *, shuffle: bool) -> Array:
    """The order of the samples in an epoch.  Returns (num_samples,) int64."""
    if not shuffle:
        return np.arange(num_samples)
    return generator(seed, Purpose.EPOCH_ORDER, epoch).permutation(num_samples)

"""The adding problem: sequences whose target takes two steps that lie far apart."""

from __future__ import annotations

import numpy as np

from dist_relu.core.checks import check_int, check_seed
from dist_relu.data.dataset import Dataset
from dist_relu.partition import Purpose, generator


def adding(num_samples: int, steps: int = 150, seed: int = 0) -> Dataset:
    """Sequences of pairs, a number and a mark; the target is the sum of the two numbers that are marked.

    x: (num_samples, steps, 2) float32: numbers uniform in [0, 1), and marks, which are 1 at two steps and 0 at all
    others: one in the first half of the sequence, one in the second, both uniform there.  y: (num_samples, 1) float32.
    Predicting 1 for all has a mean squared error of 1/6. A seed has one stream of sequences for each length.

    Hochreiter and Schmidhuber (1997), experiment 4; without padding and with marks of 0 and 1 as in Le, Jaitly and
    Hinton (2015), section 4.1; a mark in each half as in Arjovsky, Shah and Bengio (2016), section 5.1.
    """
    num_samples, steps = check_int("adding(num_samples)", num_samples), check_int("adding(steps)", steps, 2)
    rng = generator(check_seed(seed), Purpose.SAMPLES, steps)
    x = np.zeros((num_samples, steps, 2), np.float32)
    x[:, :, 0] = rng.random((num_samples, steps), np.float32)
    samples = np.arange(num_samples)
    first, second = rng.integers(0, steps // 2, num_samples), rng.integers(steps // 2, steps, num_samples)
    x[samples, first, 1] = x[samples, second, 1] = 1
    return Dataset(x, x[samples, first, 0] + x[samples, second, 0])

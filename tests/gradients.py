"""A numerical check of backward passes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dist_relu import nn
from tests.twin import Array

_STEP = 1e-6
_NUM_DIRECTIONS = 5
_TOLERANCE = 1e-7
"""Of the sum of the magnitudes of what may cancel."""


def check_backward(
    model: nn.Sequential,
    x: Array,
    rng: np.random.Generator,
    *,
    run: Callable[[], nn.Pass] = nn.PlainPass,
) -> None:
    """Compare the gradients of a built float64 model with central differences, along random directions.

    They are those of the sum of outputs times random numbers, by x and by every parameter.  run: makes a pass; all
    passes must draw the same random numbers.
    """
    dy = rng.standard_normal(model.forward(x, run()).shape)
    within = run()
    model.forward(x, within)
    gradients = [(x, model.backward(dy, within).copy())]
    gradients += [(param.value, param.grad.copy()) for param in model.params if param.momentum is None]
    for array, gradient in gradients:
        before = array.copy()
        for _ in range(_NUM_DIRECTIONS):
            direction = rng.standard_normal(array.shape)
            sums = []
            for step in (_STEP, -_STEP):
                array[...] = before + step * direction
                sums.append(float((model.forward(x, run()) * dy).sum()))
            array[...] = before
            slope = (sums[0] - sums[1]) / (2 * _STEP)
            along = gradient * direction
            assert abs(float(along.sum()) - slope) < _TOLERANCE * (1 + float(np.abs(along).sum()))

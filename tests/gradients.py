"""Checks of backward passes: by differences, and by that of every layer alone."""

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


def check_fused(model: nn.Sequential, x: Array, rng: np.random.Generator) -> None:
    """Compare the outputs and gradients of a model, in which neighbours run as one, with those of single layers."""
    y = model.forward(x)
    dy = rng.standard_normal(y.shape).astype(y.dtype)
    dx = model.backward(dy)
    gradients = [param.grad.copy() for param in model.params]
    outputs = model.activations(x)
    for layer in reversed(model.layers):
        dy = layer.backward(dy)
    assert (outputs[-1] == y).all()
    assert (dy == dx).all()
    for param, gradient in zip(model.params, gradients, strict=True):
        assert (param.grad == gradient).all()

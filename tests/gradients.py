"""Numerical checks of backward passes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dist_relu import nn
from tests.twin import Array


def check_backward(
    model: nn.Sequential,
    x: Array,
    rng: np.random.Generator,
    *,
    run: Callable[[], nn.Pass] = nn.PlainPass,
    wants_dx: bool = True,
    step: float = 1e-6,
    rel: float = 1e-6,
) -> None:
    """Compare the gradients of a built float64 model with central differences along random directions."""
    y = model.forward(x, run())
    dy = rng.standard_normal(y.shape)
    within = run()
    model.forward(x, within)
    dx = model.backward(dy, within)
    gradient = [param.grad.copy() for param in model.params]

    def objective() -> float:
        return float((model.forward(x, run()) * dy).sum())

    def slope(array: Array, direction: Array) -> float:
        before = array.copy()
        array += step * direction
        above = objective()
        array[...] = before - step * direction
        below = objective()
        array[...] = before
        return (above - below) / (2 * step)

    pairs = [(param.value, d) for param, d in zip(model.params, gradient, strict=True) if param.momentum is None]
    if wants_dx:
        pairs.append((x, dx))
    for array, d in pairs:
        for _ in range(3):
            direction = rng.standard_normal(array.shape)
            assert float((d * direction).sum()) == pytest.approx(slope(array, direction), rel=rel, abs=1e-7)

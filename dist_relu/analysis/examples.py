"""Small networks are trained to be looked at: what ReLU can do that linear layers can't."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dist_relu.coordinator import Coordinator
from dist_relu.core.arrays import Array
from dist_relu.nn import Dense, Sequential, mlp
from dist_relu.optim import Adam, Cosine

CURVE_UNITS = 64, 64
_SAMPLES, _EPOCHS, _BATCH_SIZE = 256, 300, 32


@dataclass(frozen=True, kw_only=True)
class CurveFit:
    """This is a curve with noise, and what networks made of it.

    x, y: (N,), the samples.  grid: (M,), where the networks were asked.  outputs: (M,) by the name of each network.
    losses: (steps,) the same way, mean squared errors.
    """

    x: Array
    y: Array
    grid: Array
    outputs: dict[str, Array]
    losses: dict[str, Array]


def fit_curve(coordinator: Coordinator, seed: int = 0) -> CurveFit:
    """Fit sin 3x + x / 3, with noise, by three linear layers and by the same layers with ReLU between them.

    Collective; the same bits on any number of workers.
    """
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, (_SAMPLES, 1))
    y = np.sin(3 * x) + x / 3 + rng.normal(0, 0.1, x.shape)
    grid = np.linspace(-2, 2, 401)
    networks = {
        "linear layers": Sequential(*map(Dense, CURVE_UNITS), Dense(1)),
        "with ReLU between them": mlp(CURVE_UNITS, 1),
    }
    outputs, losses = {}, {}
    for name, network in networks.items():
        result = coordinator.fit(
            network, (x, y), Adam(Cosine(0.01, _EPOCHS)), epochs=_EPOCHS, batch_size=_BATCH_SIZE, seed=seed, shards=1
        )
        outputs[name] = coordinator.forward(network, grid[:, np.newaxis])[:, 0]
        losses[name] = result.losses
    return CurveFit(x=x[:, 0], y=y[:, 0], grid=grid, outputs=outputs, losses=losses)

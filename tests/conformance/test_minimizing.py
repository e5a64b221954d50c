"""L-BFGS finds the minima that SciPy finds, with the same bits on any number of workers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

import dist_relu as dr
from dist_relu import nn, optim
from dist_relu.core.arrays import Array


def some_of(digits: dr.data.Split, num_samples: int = 400) -> dr.Dataset:
    return dr.Dataset(digits.train.x[:num_samples], digits.train.y[:num_samples])


def test_bits_do_not_depend_on_the_workers(coordinator: dr.Coordinator, digits: dr.data.Split) -> None:
    model, alone = nn.mlp([16], 10), nn.mlp([16], 10)
    found = coordinator.minimize(model, some_of(digits), optim.LBFGS(max_iterations=15), shards=4, seed=1)
    with dr.start(backend="serial") as serial:
        expected = serial.minimize(alone, some_of(digits), optim.LBFGS(max_iterations=15), shards=4, seed=1)
    assert found.losses == expected.losses
    assert model.sha256() == alone.sha256()
    assert found.num_iterations == 15
    assert found.losses == sorted(found.losses, reverse=True)


def test_the_minimum_of_a_convex_loss_is_scipys(coordinator: dr.Coordinator, digits: dr.data.Split) -> None:
    """Multinomial logistic regression with a penalty has one minimum."""
    data, decay = some_of(digits, 200), 0.01
    model = nn.Sequential(nn.Dense(10), dtype="float64").build((64,)).initialize(seed=1)
    shape = model.params[0].shape

    def loss(values: Array) -> tuple[float, Array]:
        weight, offset = values[: np.prod(shape)].reshape(shape), values[np.prod(shape) :]
        z = data.x.astype(float) @ weight + offset
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        mean = -np.log(p[np.arange(len(p)), data.y]).mean() + decay / 2 * (weight**2).sum()
        p[np.arange(len(p)), data.y] -= 1
        p /= len(p)
        return mean, np.concatenate([(data.x.T @ p + decay * weight).ravel(), p.sum(axis=0)])

    rule = optim.LBFGS(max_iterations=1000, gradient_tolerance=1e-7, loss_tolerance=0, weight_decay=decay)
    found = coordinator.minimize(model, data, rule)
    options = {"gtol": 1e-7, "ftol": 0, "maxiter": 1000}
    theirs: Any = minimize(loss, np.zeros(model.num_params), jac=True, method="L-BFGS-B", options=options)
    assert found.converged
    assert found.gradient_norm <= 1e-7
    assert found.loss == pytest.approx(theirs.fun, rel=1e-10)
    assert found.loss == pytest.approx(loss(model.values)[0], rel=1e-12)

"""Penalties on activations: what is minimised with them, and what becomes of the activations."""

from __future__ import annotations

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn
from dist_relu.analysis import activation_statistics
from tests.twin import Array


def penalised(l1: float, activation: nn.Layer) -> nn.Sequential:
    layers = nn.Dense(20), activation, nn.ActivityPenalty(l1), nn.Dense(10)
    return nn.Sequential(*layers, dtype="float64").build((64,)).initialize(seed=1)


def minimised(model: nn.Sequential, values: Array, x: Array, y: Array, l1: float) -> tuple[float, float]:
    """The mean cross-entropy with these parameters, and the mean penalty."""
    model.bind(values)
    *_, penalised_ones, logits = model.activations(x)
    log_sums = np.log(np.exp(logits).sum(axis=1))
    loss = (log_sums - logits[np.arange(len(y)), y]).mean()
    return float(loss), l1 * float(np.abs(penalised_ones).sum(axis=1).mean())


def test_the_mean_over_the_batch_of_loss_and_penalty_is_minimised(
    digits: dr.data.Split, rng: np.random.Generator
) -> None:
    x, y, l1, lr = digits.train.x[:30].astype(float), digits.train.y[:30], 0.2, 0.5
    model = penalised(l1, nn.Tanh())
    before = model.values.copy()
    with dr.start(backend="serial") as coordinator:
        result = coordinator.fit(model, (x, y), dr.optim.SGD(lr), epochs=1, batch_size=30, shards=4)
    gradient = (before - model.values) / lr
    for _ in range(3):
        step = 1e-6 * rng.standard_normal(len(before))
        above, below = (sum(minimised(model, before + side * step, x, y, l1)) for side in (1, -1))
        assert float(2 * gradient @ step) == pytest.approx(above - below, rel=1e-5)
    loss, penalty = minimised(model, before, x, y, l1)
    assert result.losses[0] == pytest.approx(loss, rel=1e-9)
    assert penalty > 0.1


def test_a_penalty_makes_activations_sparser(digits: dr.data.Split) -> None:
    sparsity = []
    with dr.start(backend="serial") as coordinator:
        for l1 in (0.0, 0.01):
            model = penalised(l1, nn.ReLU())
            coordinator.fit(model, digits.train, dr.optim.SGD(0.1), epochs=10, batch_size=32)
            sparsity.append(activation_statistics(coordinator, model, digits.test.x)[1].sparsity)
    assert sparsity[1] > sparsity[0] + 0.1


def test_no_penalty_counts_outside_training(rng: np.random.Generator) -> None:
    model = penalised(0.2, nn.ReLU())
    x, dy = rng.standard_normal((5, 64)), rng.standard_normal((5, 10))
    same = penalised(0.0, nn.ReLU())
    assert (model.forward(x) == same.forward(x)).all()
    assert (model.backward(dy) == same.backward(dy)).all()


def test_a_negative_penalty_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ActivityPenalty\(l1=-1\): must be at least 0"):
        nn.ActivityPenalty(-1)

"""How much samples count, and how often they are drawn, beside scikit-learn and PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

import dist_relu as dr
from dist_relu import nn, optim
from dist_relu.engine.weighting import DRAWN_ONCE, chances, loss_weights, order_of_epoch

N = 200
RNG = np.random.default_rng(1)
X = RNG.standard_normal((N, 3))
Y = np.array([0, 1, 3])[np.minimum(RNG.geometric(0.6, N) - 1, 2)]


def test_balanced_classes_weigh_what_scikit_learn_says() -> None:
    expected = compute_class_weight("balanced", classes=np.unique(Y), y=Y)
    found = loss_weights(dr.Dataset(X, Y), "balanced", None)
    assert [found[np.argmax(number == Y)] for number in (0, 1, 3)] == expected.tolist()


def test_weights_of_classes_that_are_not_named_are_one() -> None:
    found = loss_weights(dr.Dataset(X, Y, weights=np.full(N, 2.0)), {1: 3.0}, None)
    assert (found == np.where(Y == 1, 6.0, 2.0)).all()


def test_balanced_classes_count_alike_whatever_samples_weigh() -> None:
    found = loss_weights(dr.Dataset(X, Y, weights=RNG.random(N)), "balanced", None)
    np.testing.assert_allclose(np.bincount(Y, found)[[0, 1, 3]], found.sum() / 3)


@pytest.mark.parametrize("seed", [0, 1])
def test_an_order_is_a_function_of_seed_and_epoch(seed: int) -> None:
    of_samples = chances(dr.Dataset(X, Y), None, "balanced")
    orders = [order_of_epoch(N, seed, epoch, shuffle=True, chances=of_samples) for epoch in (0, 1, 0)]
    assert (orders[0] == orders[2]).all()
    assert (orders[0] != orders[1]).any()
    assert (orders[0] != order_of_epoch(N, seed + 1, 0, shuffle=True, chances=of_samples)).any()
    assert sorted(order_of_epoch(N, seed, 0, shuffle=True, chances=DRAWN_ONCE)) == list(range(N))


@pytest.mark.peer
def test_the_loss_of_a_step_is_that_of_pytorch_with_weights_of_classes() -> None:
    torch = pytest.importorskip("torch")
    weights = {0: 0.5, 1: 2.0, 3: 5.0}
    model = nn.mlp((4,), 4, "float64").build((3,)).initialize(1)
    criterion = torch.nn.CrossEntropyLoss(weight=torch.tensor([0.5, 2.0, 1.0, 5.0], dtype=torch.float64))
    expected = criterion(torch.tensor(model.forward(X)), torch.tensor(Y)).item()
    with dr.start(backend="serial") as coordinator:
        result = coordinator.fit(model, (X, Y), optim.SGD(0.1), epochs=1, batch_size=N, shards=4, class_weight=weights)
    assert result.losses[0] == pytest.approx(expected, rel=1e-12)

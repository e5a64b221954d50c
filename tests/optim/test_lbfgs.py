"""L-BFGS and its line search."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier

import dist_relu as dr
from dist_relu import nn, optim


@pytest.fixture(scope="module")
def serial() -> Iterator[dr.Coordinator]:
    with dr.start(backend="serial") as coordinator:
        yield coordinator


@pytest.fixture
def data(digits: dr.data.Split) -> dr.Dataset:
    return dr.Dataset(digits.train.x[:300], digits.train.y[:300])


def rosenbrock() -> tuple[nn.Sequential, dr.Dataset]:
    """A network of two parameters whose squared error has a valley: (a·b - 1)² over inputs that pull apart."""
    x = np.array([[1.0], [2.0], [3.0]])
    return nn.Sequential(nn.Dense(1), nn.Tanh(), nn.Dense(1), dtype="float64"), dr.Dataset(x, np.tanh(2 * x) * 3)


def test_a_network_that_can_fit_its_data_does(serial: dr.Coordinator) -> None:
    model, data = rosenbrock()
    found = serial.minimize(model, data, optim.LBFGS(max_iterations=500, loss_tolerance=0, gradient_tolerance=1e-9))
    assert found.loss < 1e-12


def test_the_loss_is_about_that_of_scikit_learn(serial: dr.Coordinator, data: dr.Dataset) -> None:
    alpha = 1e-2
    theirs = MLPClassifier((20,), solver="lbfgs", alpha=alpha, max_iter=1000, tol=1e-4, random_state=1)
    theirs.fit(data.x, data.y)
    rule = optim.LBFGS(max_iterations=1000, gradient_tolerance=1e-4, weight_decay=alpha / len(data))
    found = serial.minimize(nn.mlp([20], 10, "float64"), data, rule, seed=1)
    assert found.converged
    assert found.loss < 2 * theirs.loss_


def test_a_minimisation_goes_on_from_the_parameters_that_there_are(serial: dr.Coordinator, data: dr.Dataset) -> None:
    model = nn.mlp([8], 10)
    first = serial.minimize(model, data, optim.LBFGS(max_iterations=5))
    second = serial.minimize(model, data, optim.LBFGS(max_iterations=5))
    assert second.losses[0] == first.loss
    assert second.loss < first.loss


def test_it_ends_when_a_callback_says_so(serial: dr.Coordinator, data: dr.Dataset) -> None:
    model, seen = nn.mlp([8], 10), []

    def stop(iteration: optim.Iteration) -> None:
        seen.append(iteration)
        if iteration.number == 3:
            raise StopIteration

    found = serial.minimize(model, data, on_iteration=stop)
    assert [iteration.number for iteration in seen] == [1, 2, 3]
    assert (found.num_iterations, found.converged, found.reason) == (3, False, "a callback has ended it")
    assert seen[-1].loss == found.loss == pytest.approx(serial.evaluate(model, data).loss, rel=1e-5)


def test_what_limits_it_is_told(serial: dr.Coordinator, data: dr.Dataset) -> None:
    found = serial.minimize(nn.mlp([8], 10), data, optim.LBFGS(max_evaluations=7))
    assert found.num_evaluations == 7
    assert repr(found).endswith("evaluations: 7; max_evaluations=7 are done)")
    assert not found.converged


def test_weights_of_samples_count(serial: dr.Coordinator, data: dr.Dataset) -> None:
    """A sample of weight 2 is one that is there twice."""
    weights = np.ones(len(data))
    weights[:50] = 2
    twice = dr.Dataset(np.concatenate([data.x[:50], data.x]), np.concatenate([data.y[:50], data.y]))
    of_weights, of_copies = nn.mlp([8], 10, "float64"), nn.mlp([8], 10, "float64")
    rule = optim.LBFGS(max_iterations=10)
    found = serial.minimize(of_weights, dr.Dataset(data.x, data.y, weights=weights), rule)
    expected = serial.minimize(of_copies, twice, rule)
    assert found.losses == pytest.approx(expected.losses, rel=1e-6)


@pytest.mark.long
def test_workers_may_become_others_between_iterations(serial: dr.Coordinator, data: dr.Dataset) -> None:
    model, alone = nn.mlp([8], 10), nn.mlp([8], 10)
    with dr.start(3, backend="local") as coordinator:

        def resize(iteration: optim.Iteration) -> None:
            if iteration.number == 3:
                coordinator.resize(2)

        coordinator.minimize(model, data, optim.LBFGS(max_iterations=6), shards=4, on_iteration=resize)
    serial.minimize(alone, data, optim.LBFGS(max_iterations=6), shards=4)
    assert model.sha256() == alone.sha256()


def test_models_that_are_no_function_are_refused(serial: dr.Coordinator, data: dr.Dataset) -> None:
    with pytest.raises(ValueError, match="Dropout draws anew each time"):
        serial.minimize(nn.Sequential(nn.Dropout(0.5), nn.Dense(10)), data)
    with pytest.raises(ValueError, match="BatchNorm has statistics that follow training"):
        serial.minimize(nn.Sequential(nn.Dense(10), nn.BatchNorm()), data)


def test_fit_says_where_it_belongs(serial: dr.Coordinator, data: dr.Dataset) -> None:
    with pytest.raises(TypeError, match=r"coordinator\.minimize\(model, data, optimizer\)"):
        serial.fit(nn.mlp([8], 10), data, optim.LBFGS(), epochs=1, batch_size=10)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="LBFGS has no argument max_iter; write max_iterations="):
        optim.LBFGS(max_iter=3)  # type: ignore[call-arg]


def test_a_loss_that_is_no_number_is_told(serial: dr.Coordinator, data: dr.Dataset) -> None:
    model = nn.mlp([8], 10).build((64,)).initialize()
    model.values[:] = np.inf
    with pytest.raises(FloatingPointError, match="before the first iteration"):
        serial.minimize(model, data)

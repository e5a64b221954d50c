"""Recurrent networks."""

from __future__ import annotations

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn
from tests.gradients import check_backward
from tests.twin import Array

KINDS = [
    pytest.param(nn.RNN(5), id="ReLU"),
    pytest.param(
        nn.RNN(5, activation=nn.Tanh(), recurrent_init=nn.HeNormal()), id="tanh", marks=pytest.mark.long
    ),  # whose outputs are kept, as those of ReLU are
    pytest.param(nn.RNN(5, activation=nn.LeakyReLU(0.2), recurrent_init=nn.HeNormal()), id="LeakyReLU"),
    pytest.param(
        nn.RNN(5, activation=nn.GELU(), recurrent_init=nn.HeNormal()), id="GELU", marks=pytest.mark.long
    ),  # whose inputs are kept, as those of LeakyReLU are
    pytest.param(nn.RNN(5, sequences=True, recurrent_init=nn.HeNormal()), id="sequences"),
]


def built(layer: nn.Layer, shape: tuple[int, ...] = (7, 3), dtype: str = "float64") -> nn.Sequential:
    return nn.Sequential(layer, dtype=dtype).build(shape).initialize(seed=1)


def states(rnn: nn.RNN, x: Array) -> Array:
    """All states of a ReLU network, (N, T, K), in plain NumPy."""
    h = np.zeros((len(x), rnn.units))
    found = []
    for t in range(x.shape[1]):
        h = np.maximum(x[:, t] @ rnn.weight.value + h @ rnn.recurrent.value + rnn.bias.value, 0)
        found.append(h)
    return np.stack(found, axis=1)


@pytest.mark.parametrize("layer", KINDS)
def test_backward_agrees_with_finite_differences(layer: nn.RNN, rng: np.random.Generator) -> None:
    check_backward(built(layer), rng.standard_normal((4, 7, 3)), rng)


@pytest.mark.parametrize("num", [1, 4])
def test_states_are_those_of_plain_numpy(rng: np.random.Generator, num: int) -> None:
    x = rng.standard_normal((num, 7, 3))
    every, last = nn.RNN(5, sequences=True), nn.RNN(5)
    expected = None
    for rnn in (every, last):
        y = built(rnn).forward(x)
        expected = states(rnn, x)
        np.testing.assert_allclose(y, expected if rnn.sequences else expected[:, -1], atol=1e-12)


def test_a_stream_gives_the_states_of_the_whole_sequence(rng: np.random.Generator) -> None:
    rnn = nn.RNN(5, sequences=True)
    x = rng.standard_normal((4, 7, 3))
    y = built(rnn).forward(x)
    state = None
    for t in range(7):
        state = rnn.step(x[:, t], state)
        np.testing.assert_allclose(state, y[:, t], atol=1e-12)


def test_recurrent_weights_begin_as_the_identity() -> None:
    rnn = nn.RNN(5)
    built(rnn)
    assert (rnn.recurrent.value == np.eye(5)).all()


def test_truncated_gradients_stop_at_the_beginning_of_their_segment(rng: np.random.Generator) -> None:
    x = rng.standard_normal((4, 6, 3))
    model = built(nn.RNN(5, truncate=2, recurrent_init=nn.HeNormal()), (6, 3))
    model.forward(x)
    dx = model.backward(rng.standard_normal((4, 5)))
    assert (dx[:, :4] == 0).all()
    assert (dx[:, 4:] != 0).any()


@pytest.mark.long
def test_sequences_train_with_the_same_bits_on_any_number_of_workers(digits: dr.data.Split) -> None:
    rows = dr.Dataset(digits.train.x.reshape(-1, 8, 8), digits.train.y)
    digests = set()
    for backend, workers in (("serial", 1), ("local", 3)):
        model = nn.Sequential(nn.RNN(130, sequences=True), nn.RNN(20), nn.Dense(10))
        with dr.start(workers, backend=backend) as coordinator:
            result = coordinator.fit(model, rows, dr.optim.Adam(0.0005), epochs=8, batch_size=50, shards=4)
            gradients = coordinator.gradients(model, (rows.x[:60], rows.y[:60]), shards=4)
        digests.add(model.sha256())
        model.forward(rows.x[:60])
        outputs = model.forward(rows.x[:60])
        dz = np.empty_like(outputs)
        nn.CrossEntropy().backward(outputs, rows.y[:60], 1 / 60, dz)
        model.backward(dz)
        for name, param in zip(model.names, model.params, strict=True):
            np.testing.assert_allclose(gradients[name], param.grad, rtol=1e-4, atol=1e-6, err_msg=name)
    assert len(digests) == 1
    assert (result.epochs[-1].accuracy or 0) > 0.8


def test_a_relu_network_that_begins_as_the_identity_learns_the_adding_problem() -> None:
    """Far better than always predicting 1, with an error of 1/6."""
    train, test = dr.data.adding(6000, steps=15), dr.data.adding(1000, steps=15, seed=1)
    model = nn.Sequential(nn.RNN(30, init=nn.Normal(0.1)), nn.Dense(1))
    with dr.start(backend="serial") as coordinator:
        coordinator.fit(model, train, dr.optim.Adam(0.003), epochs=4, batch_size=20, clip_norm=1.0)
        assert coordinator.evaluate(model, test).loss < 0.02


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.peer
def test_the_relu_network_is_that_of_pytorch(dtype: str, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    rnn = nn.RNN(5, sequences=True, recurrent_init=nn.HeNormal())
    model = built(rnn, dtype=dtype)
    peer = torch.nn.RNN(3, 5, nonlinearity="relu", batch_first=True, dtype=getattr(torch, dtype))
    peer.weight_ih_l0.data = torch.from_numpy(rnn.weight.value.T.copy())
    peer.weight_hh_l0.data = torch.from_numpy(rnn.recurrent.value.T.copy())
    peer.bias_ih_l0.data[:] = 0
    peer.bias_hh_l0.data[:] = 0
    x, dy = rng.standard_normal((4, 7, 3)).astype(dtype), rng.standard_normal((4, 7, 5)).astype(dtype)
    peer_x = torch.from_numpy(x).requires_grad_()
    y, (peer_y, _) = model.forward(x), peer(peer_x)
    dx = model.backward(dy)
    peer_y.backward(torch.from_numpy(dy))
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    for mine, theirs in (
        (y, peer_y.detach().numpy()),
        (dx, peer_x.grad.numpy()),
        (rnn.weight.grad, peer.weight_ih_l0.grad.numpy().T),
        (rnn.recurrent.grad, peer.weight_hh_l0.grad.numpy().T),
        (rnn.bias.grad, peer.bias_ih_l0.grad.numpy()),
    ):
        np.testing.assert_allclose(mine, theirs, rtol=tolerance, atol=tolerance * np.abs(theirs).max())

"""What analysis makes of models of every kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import analysis, nn, optim
from dist_relu.analysis.plane import plane_of
from tests.twin import Array


@pytest.fixture(scope="module")
def serial() -> Iterator[dr.Coordinator]:
    with dr.start(backend="serial") as coordinator:
        yield coordinator


def with_dead_units(*sizes: int, dead: dict[int, list[int]], dtype: str = "float32") -> nn.Sequential:
    """An mlp for samples of 8 numbers; dead: units of hidden layers that never act, by the layer's number."""
    model = nn.mlp(sizes, 3, dtype).build((8,)).initialize(seed=2)
    for number, units in dead.items():
        model.views(model.values)[2 * number + 1][units] = -1000
    return model


def test_a_single_output_tells_two_classes_on_the_plane(serial: dr.Coordinator, rng: np.random.Generator) -> None:
    x = rng.standard_normal((60, 2))
    data = dr.Dataset(x, (x[:, 0] > 0).astype(int))
    model = nn.mlp((4,), 1)
    serial.fit(model, data, optim.SGD(0.5), epochs=20, batch_size=20, loss=nn.BinaryCrossEntropy())
    plane = plane_of(serial, model, dr.data.Split(data, data))
    of_ones = plane.probabilities[:, plane.across > 0.5, 1]
    assert of_ones.mean() > 0.9
    assert plane.accuracy > 0.9
    assert np.allclose(plane.probabilities.sum(axis=2), 1)


@pytest.mark.long
def test_gradients_agree_with_finite_differences_of_the_loss(serial: dr.Coordinator, rng: np.random.Generator) -> None:
    """Of every input, weight and bias there is."""
    layers = [nn.Dense(6), nn.Tanh(), nn.Dense(7), nn.GELU(), nn.LayerNorm(), nn.Dense(5), nn.Softplus()]
    model = nn.Sequential(*layers, nn.Dense(3), dtype="float64").build((8,)).initialize(seed=3)
    x, y = rng.standard_normal((300, 8)), rng.integers(0, 3, 300)
    flow = analysis.gradient_flow(serial, model, (x, y))
    gradients = np.zeros((300, 8))
    for unit in range(8):
        for sign in (1, -1):
            moved = x.copy()
            moved[:, unit] += sign * 1e-5
            losses = -np.log(np.exp(z := model.forward(moved)) / np.exp(z).sum(axis=1, keepdims=True))
            gradients[:, unit] += sign * losses[np.arange(300), y] / 2e-5
    at_input = flow.outputs["input"]
    assert at_input.norm == pytest.approx(np.sqrt((gradients**2).sum(axis=1).mean()), rel=1e-7)
    assert at_input.mean_absolute == pytest.approx(np.abs(gradients).mean(), rel=1e-7)
    assert at_input.variance == pytest.approx(gradients.var(), rel=1e-7)
    for name, view in zip(model.names, model.views(model.values), strict=True):
        flat, gradient = view.reshape(-1), np.zeros(view.size)
        for i in range(view.size):
            before = flat[i]
            for sign in (1, -1):
                flat[i] = before + sign * 1e-5
                gradient[i] += sign * serial.evaluate(model, (x, y)).loss / 2e-5
            flat[i] = before
        assert flow.weights[name].norm == pytest.approx(np.linalg.norm(gradient), rel=1e-6, abs=1e-9)
        assert flow.weights[name].mean_absolute == pytest.approx(np.abs(gradient).mean(), rel=1e-5, abs=1e-9)


def test_the_gradient_at_a_layer_is_that_of_the_input_of_what_follows(
    serial: dr.Coordinator, rng: np.random.Generator
) -> None:
    model = nn.Sequential(nn.Dense(20), nn.ReLU(), nn.Dense(10), nn.SiLU(), nn.Dense(3), dtype="float64")
    model.build((8,)).initialize(seed=3)
    data = rng.standard_normal((300, 8)), rng.standard_normal((300, 3))
    whole = analysis.gradient_flow(serial, model, data)
    hidden = serial.activations(model, data[0])[1]
    tail = nn.Sequential(nn.Dense(10), nn.SiLU(), nn.Dense(3), dtype="float64").build((20,)).initialize()
    tail.values[:] = model.values[-tail.num_params :]
    assert analysis.gradient_flow(serial, tail, (hidden, data[1])).outputs["input"] == whole.outputs["1 ReLU"]


@pytest.mark.parametrize("name", ["cnn", "resnet", "rnn"])
def test_models_of_every_kind_have_statistics_and_gradients(
    serial: dr.Coordinator, rng: np.random.Generator, name: str
) -> None:
    models = {"cnn": nn.cnn((8, 8, 1), 10), "resnet": nn.resnet(8, (8, 8, 1), 10), "rnn": nn.rnn(20, 10, (8, 8))}
    model = models[name].build((64,)).initialize()
    x, y = rng.standard_normal((300, 64)).astype(np.float32), rng.integers(0, 10, 300)
    layers = analysis.activation_statistics(serial, model, x)
    for layer, output in zip(layers, serial.activations(model, x), strict=True):
        assert layer.sparsity == pytest.approx((output == 0).mean())
        assert layer.mean == pytest.approx(output.mean(dtype=np.float64), rel=1e-6, abs=1e-9)
        assert layer.variance == pytest.approx(output.var(dtype=np.float64), rel=1e-6)
    flow = analysis.gradient_flow(serial, model, (x, y))
    assert flow.loss == pytest.approx(serial.evaluate(model, (x, y)).loss)
    assert all(magnitude.norm > 0 for magnitude in flow.outputs.values())
    assert set(flow.weights) == {n for n in model.names if "running" not in n}


def losses_when_moved(model: nn.Sequential, x: Array, y: Array, layer: int, t: int, unit: int, by: float) -> Array:
    """Of each sample, in plain NumPy: of two recurrences and a dense layer, one unit's state moved after one step."""
    *recurrences, (weight, bias) = (layer.params() for layer in model.layers)
    for number, ((w, u, b), rnn) in enumerate(zip(recurrences, model.layers[:2], strict=True)):
        assert isinstance(rnn, nn.RNN)
        h, states = np.zeros((len(x), rnn.units)), []
        for step in range(x.shape[1]):
            z = x[:, step] @ w.value + h @ u.value + b.value
            h = np.tanh(z) if isinstance(rnn.activation, nn.Tanh) else np.maximum(z, 0)
            if (number, step) == (layer, t):
                h[:, unit] += by
            states.append(h)
        x = np.stack(states, axis=1)
    z = x[:, -1] @ weight.value + bias.value
    losses: Array = np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), y]
    return losses


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh()], ids=["ReLU", "tanh"])
def test_gradients_through_time_agree_with_finite_differences(
    serial: dr.Coordinator, activation: nn.ReLU | nn.Tanh, rng: np.random.Generator
) -> None:
    """At every state of both recurrences: of one that passes all its states on, and of one that passes on the last."""
    init = nn.HeNormal()
    layers = nn.RNN(5, activation, sequences=True, recurrent_init=init), nn.RNN(4, activation, recurrent_init=init)
    model = nn.Sequential(*layers, nn.Dense(3), dtype="float64").build((7, 3)).initialize(seed=3)
    x, y = rng.standard_normal((300, 7, 3)), rng.integers(0, 3, 300)
    flows = analysis.gradient_through_time(serial, model, (x, y))
    assert [(flow.name, len(flow.norms)) for flow in flows] == [("0 RNN", 7), ("1 RNN", 7)]
    for number, (flow, units) in enumerate(zip(flows, (5, 4), strict=True)):
        for t, norm in enumerate(flow.norms):
            squares = np.zeros(300)
            for unit in range(units):
                above, below = (losses_when_moved(model, x, y, number, t, unit, by) for by in (1e-6, -1e-6))
                squares += ((above - below) / 2e-6) ** 2
            assert norm == pytest.approx(np.sqrt(squares.mean()), rel=1e-6)


@pytest.mark.parametrize("sequences", [False, True])
def test_truncation_cuts_gradients_through_time(
    serial: dr.Coordinator, sequences: bool, rng: np.random.Generator
) -> None:
    """Segments of three steps; where all states are seen, the end of a segment has a gradient from there alone."""
    data = rng.standard_normal((20, 7, 3)), rng.standard_normal((20, 4))
    norms = []
    for truncate in (3, None):
        layers = nn.RNN(5, sequences=sequences, truncate=truncate), nn.Flatten(), nn.Dense(4)
        model = nn.Sequential(*layers).build((7, 3)).initialize()
        (flow,) = analysis.gradient_through_time(serial, model, data)
        norms.append(flow.norms)
    cut, whole = norms
    assert cut[6] == whole[6]
    assert all((cut[t] > 0) == sequences and cut[t] < whole[t] for t in range(6))


def test_only_recurrences_have_gradients_through_time(serial: dr.Coordinator) -> None:
    model = nn.mlp([5], 3).build((8,)).initialize()
    with pytest.raises(ValueError, match="Gradients go through time in RNN layers, and the model has none"):
        analysis.gradient_through_time(serial, model, (np.zeros((4, 8)), np.zeros(4, int)))


def test_layers_of_up_to_256_units_lose_all_dead_ones(serial: dr.Coordinator, rng: np.random.Generator) -> None:
    model = with_dead_units(256, 100, dead={0: [0, 5, 100, 255], 1: [7]})
    result = analysis.compact(serial, model, rng.standard_normal((500, 8)))
    assert result.removed == {0: 4, 2: 1}
    assert result.left == {0: 0, 2: 0}
    assert [layer.units for layer in result.model.layers if isinstance(layer, nn.Dense)] == [252, 99, 3]
    assert result.largest_difference == 0


def test_wider_layers_lose_what_moves_no_term_into_another_chain(
    serial: dr.Coordinator, rng: np.random.Generator
) -> None:
    dead = [3, *range(256, 512), 600, 700, 999]
    model = with_dead_units(1000, dead={0: dead})
    x = rng.standard_normal((500, 8))
    result = analysis.compact(serial, model, x)
    assert (result.removed, result.left) == ({0: 256 + 1}, {0: 3})
    assert (serial.forward(result.model, x) == serial.forward(model, x)).all()


def test_all_dead_units_go_when_bits_may_change(serial: dr.Coordinator, rng: np.random.Generator) -> None:
    model = with_dead_units(1000, dead={0: list(range(0, 800, 2))})
    x = rng.standard_normal((500, 8))
    result = analysis.compact(serial, model, x, exact=False)
    assert (result.removed, result.left) == ({0: 400}, {0: 0})
    difference = np.abs(serial.forward(result.model, x) - serial.forward(model, x))
    assert result.largest_difference == difference.max()
    assert result.num_changed == np.count_nonzero(difference) > 0
    assert result.largest_difference < 1e-5


def test_one_unit_stays_where_all_are_dead(serial: dr.Coordinator, rng: np.random.Generator) -> None:
    result = analysis.compact(
        serial, with_dead_units(20, dead={0: list(range(20))}), rng.standard_normal((10, 8)), exact=True
    )
    assert (result.removed, result.left) == ({0: 19}, {0: 1})


def test_units_go_through_functions_of_single_numbers_only(serial: dr.Coordinator, rng: np.random.Generator) -> None:
    layers = nn.Dense(20, bias=False), nn.ReLU(), nn.Dropout(), nn.Dense(20), nn.ReLU(), nn.LayerNorm(), nn.Dense(3)
    model = nn.Sequential(*layers).build((8,)).initialize()
    views = model.views(model.values)
    views[0][:, 4] = 0
    views[2][9] = -1000
    result = analysis.compact(serial, model, rng.standard_normal((50, 8)))
    assert result.removed == {0: 1}


def test_the_smaller_model_can_be_saved_and_trained(
    serial: dr.Coordinator, rng: np.random.Generator, tmp_path: Path
) -> None:
    x, y = rng.standard_normal((100, 8)), rng.integers(0, 3, 100)
    smaller = analysis.compact(serial, with_dead_units(20, dead={0: [1, 2]}), x).model
    dr.save_model(smaller, tmp_path / "model.safetensors")
    loaded = dr.load_model(tmp_path / "model.safetensors")
    assert loaded.sha256() == smaller.sha256()
    before = serial.evaluate(loaded, (x, y)).loss
    serial.fit(loaded, (x, y), dr.optim.SGD(0.05), epochs=5, batch_size=20)
    assert serial.evaluate(loaded, (x, y)).loss < before


def test_outputs_that_change_all_the_same_are_an_error(serial: dr.Coordinator, rng: np.random.Generator) -> None:
    model = with_dead_units(20, dead={0: [1]})
    model.views(model.values)[2][1] = np.inf
    x = rng.standard_normal((10, 8))
    with pytest.raises(FloatingPointError, match=r"30 outputs changed.*infinite or NaN"):
        analysis.compact(serial, model, x)


def test_there_must_be_parameters_and_samples(serial: dr.Coordinator) -> None:
    model = nn.mlp([5], 3)
    for function in (analysis.activation_statistics, analysis.dead_units, analysis.compact):
        with pytest.raises(ValueError, match="no parameters yet"):
            function(serial, model, np.zeros((4, 8)))
    with pytest.raises(ValueError, match="no parameters yet"):
        analysis.gradient_flow(serial, model, (np.zeros((4, 8)), np.zeros(4, int)))
    model.build((8,)).initialize()
    with pytest.raises(dr.DataError, match="x has no samples"):
        analysis.activation_statistics(serial, model, np.zeros((0, 8)))
    with pytest.raises(ValueError, match="built for samples of shape"):
        analysis.compact(serial, model, np.zeros((4, 7)))


def test_a_run_that_diverges_in_its_first_step_has_an_empty_course(serial: dr.Coordinator) -> None:
    model = nn.Sequential(nn.Dense(8, init=nn.Constant(1e38)), nn.ReLU(), nn.Dense(2, init=nn.Constant(-1e38)))
    part = dr.Dataset(np.ones((8, 4)), np.arange(8) % 2)
    split, rule = dr.data.Split(part, part), dr.optim.SGD(0.1)
    course = analysis.watched_course(serial, model, split, rule, epochs=1, batch_size=4, watch=dr.Watch(1))
    assert course == analysis.Course(
        steps=[], loss=[], gradient_norm=[], sparsity=[], test_loss=None, test_accuracy=None
    )

"""A run can be watched: it ends with the same bits, and what is seen does not depend on the workers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn, optim
from dist_relu.partition import bounds
from tests import twin
from tests.conftest import small_model


def fit(
    coordinator: dr.Coordinator, data: dr.Dataset, watch: dr.Watch | None, **options: Any
) -> tuple[nn.Sequential, dr.FitResult]:
    arguments: dict[str, Any] = {"optimizer": optim.SGD(0.1, momentum=0.9), "epochs": 2, "batch_size": 500} | options
    model = arguments.pop("model", None) or small_model(arguments.pop("dtype", "float32"))
    return model, coordinator.fit(model, data, watch=watch, shards=4, seed=7, **arguments)


def without_speed(steps: list[dr.WatchedStep]) -> list[dr.WatchedStep]:
    return [replace(step, samples_per_second=0) for step in steps]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"clip_norm": 0.5, "accumulate": 2},
        {"clip_norm": 0.1, "dtype": "float64", "optimizer": optim.Adam(), "epochs": 8},
        {"optimizer": optim.LAMB(optim.Cosine(0.01, 2))},
        {"optimizer": optim.Adam(), "ema_decay": 0.9, "epochs": 1},
    ],
    ids=["plain", "clipped", "clipped-float64", "layerwise", "averaged"],
)
def test_watching_changes_no_bits_and_sees_the_same_on_any_workers(
    coordinator: dr.Coordinator, few_digits: dr.data.Split, options: dict[str, Any]
) -> None:
    options = {"batch_size": 150, **options}
    with dr.start(backend="serial") as serial:
        plain, _ = fit(serial, few_digits.train, None, **options)
        _, expected = fit(serial, few_digits.train, dr.Watch(every=2), **options)
    model, result = fit(coordinator, few_digits.train, dr.Watch(every=2), **options)
    assert model.sha256() == plain.sha256()
    assert without_speed(result.watched) == without_speed(expected.watched)
    assert [step.step for step in result.watched] == list(range(0, len(result.losses), 2))
    assert all(step.samples_per_second > 0 for step in result.watched)


def distribution(z: twin.Array) -> list[int]:
    """How many numbers lie in each bin, of which those below 0 hold their lower limit, and the others their upper one.

    In other words: numbers are told apart by their sign, and then by their magnitude.
    """
    limits = [edge for edge in dr.PREACTIVATION_EDGES if edge >= 0]
    below, above = np.histogram(-z[z < 0], limits)[0], np.histogram(z[z >= 0], limits)[0]
    return [*below[::-1].tolist(), *above.tolist()]


def test_what_is_seen_is_what_plain_numpy_sees(coordinator: dr.Coordinator, digits: dr.data.Split) -> None:
    model = small_model("float64").build((64,)).initialize(seed=1)
    params = [view.copy() for view in model.views(model.values)]
    params[1][[3, 77]] = -1000
    for view, value in zip(model.views(model.values), params, strict=True):
        view[...] = value
    reference, data = twin.Mlp(params), dr.Dataset(digits.train.x[:500], digits.train.y[:500])
    schedule = optim.Step(0.1, every=1, factor=0.5)
    _, result = fit(
        coordinator, data, dr.Watch(every=1), model=model, shuffle=False, optimizer=optim.SGD(schedule, momentum=0.9)
    )
    assert [(step.step, step.epoch, step.lr) for step in result.watched] == [(0, 0, 0.1), (1, 1, 0.05)]
    for step in result.watched:
        assert step.lr is not None
        hidden = reference.forward(data.x)
        assert step.accuracy == (hidden[-1].argmax(axis=1) == data.y).mean()
        assert [layer.name for layer in step.layers] == ["1 ReLU", "3 ReLU", "4 Dense"]
        for layer, output in zip(step.layers, hidden[1:], strict=True):
            assert layer.sparsity == pytest.approx((output == 0).mean(), abs=1e-15)
            assert layer.silent == (output == 0).all(axis=0).sum()
            assert layer.mean == pytest.approx(output.mean(), rel=1e-10)
            assert layer.variance == pytest.approx(output.var(), rel=1e-10)
        for layer, x, weight, bias in zip(step.layers[:-1], hidden, reference.weights, reference.biases, strict=False):
            assert layer.preactivations == distribution(x @ weight + bias)
        assert step.layers[-1].preactivations is None
        assert step.layers[0].silent >= 2
        before = reference.weights + reference.biases
        before = [array.copy() for array in before]
        gradients = reference.gradients(data.x, data.y)
        assert step.loss == pytest.approx(reference.step(data.x, data.y, step.lr, 0.9), rel=1e-10)
        changes = [new - old for new, old in zip(reference.weights + reference.biases, before, strict=True)]
        for number, param in enumerate(step.params):
            i = number // 2 + 3 * (number % 2)
            assert param.name == model.names[number]
            assert param.gradient_norm == pytest.approx(np.linalg.norm(gradients[i]), rel=1e-10)
            if param.update_ratio is None:
                assert not before[i].any()
            else:
                ratio = np.linalg.norm(changes[i]) / np.linalg.norm(before[i])
                assert param.update_ratio == pytest.approx(ratio, rel=1e-8)


@pytest.mark.parametrize("every", [1, 2, 1000])
def test_units_are_dead_when_they_are_silent_in_all_steps_of_an_epoch_whichever_are_watched(
    coordinator: dr.Coordinator, digits: dr.data.Split, every: int
) -> None:
    x, y = digits.train.x[:1100].copy(), digits.train.y[:1100]
    x[:, 0] = np.arange(len(x)) >= 500  # this corner of the images is empty
    model = small_model("float64").build((64,)).initialize(seed=1)
    weight, bias = model.views(model.values)[:2]
    weight[:, 5] = 0
    weight[0, 5], bias[5] = 1, -0.5  # a unit that sees nothing but this
    bias[[3, 77]] = -1000
    reference = twin.Mlp([view.copy() for view in model.views(model.values)])
    _, result = fit(coordinator, dr.Dataset(x, y), dr.Watch(every), model=model, shuffle=False)
    for number, epoch in enumerate(result.epochs):
        active = [np.zeros(units, np.bool) for units in (300, 20, 10)]
        for first in (0, 500, 1000):
            batch = slice(first, first + 500)
            outputs = reference.forward(x[batch])[1:]
            active = [seen | (output != 0).any(axis=0) for seen, output in zip(active, outputs, strict=True)]
            reference.step(x[batch], y[batch], 0.1, 0.9)
        dead = [np.flatnonzero(~seen).tolist() for seen in active]
        assert epoch.epoch == number
        assert epoch.dead == dict(zip(["1 ReLU", "3 ReLU", "4 Dense"], dead, strict=True))
        assert {3, 77} <= set(epoch.dead["1 ReLU"])
    assert result.epochs[0].dead is not None
    assert 5 not in result.epochs[0].dead["1 ReLU"]
    assert result.watched[0].layers[0].silent > len(result.epochs[0].dead["1 ReLU"])


@pytest.mark.parametrize(
    "layers",
    [
        (nn.Conv2d(6, 3), nn.ReLU()),
        (nn.Conv2d(6, 3), nn.ReLU(), nn.MaxPool2d(2)),
        (nn.Conv2d(6, 3), nn.LeakyReLU()),
        (nn.Reshape((8, 6)), nn.RNN(6)),
        (nn.Flatten(), nn.Dense(6), nn.Hardtanh(0, 1)),
        (nn.Flatten(), nn.Dense(6), nn.ELU()),
    ],
    ids=lambda layers: " ".join(type(layer).__name__ for layer in layers),
)
def test_dead_units_of_any_layer_are_those_that_give_nothing_but_zeros(
    coordinator: dr.Coordinator, rng: np.random.Generator, layers: tuple[nn.Layer, ...]
) -> None:
    x, y = rng.uniform(0, 1, (30, 8, 6, 1)).astype(np.float32), rng.integers(0, 10, 30)
    x[:15, 0, 0], x[15:, 0, 0] = 50, 0  # what some units see, but in the first of the batches of an epoch only
    model = nn.Sequential(*layers, nn.Flatten(), nn.Dense(10)).blueprint().build(x.shape[1:]).initialize(seed=3)
    of_layer = dict(zip(model.names, model.params, strict=True))
    bias = next(param for name, param in of_layer.items() if name.endswith("bias"))
    bias.value[:3] = -1000
    bias.value[3:5] = -3
    number = len(layers) - 1
    outputs = model.activations(x)[number]
    name = f"{number} {type(layers[-1]).__name__}"
    unchanging = optim.SGD(1e-30)
    options: dict[str, Any] = {"batch_size": 10, "accumulate": 2, "optimizer": unchanging, "epochs": 2}
    _, result = fit(coordinator, dr.Dataset(x, y), dr.Watch(every=1000), model=model, shuffle=False, **options)
    dead = np.flatnonzero((outputs == 0).reshape(-1, 6).all(axis=0)).tolist()
    for epoch in result.epochs:
        assert epoch.dead is not None
        assert epoch.dead[name] == dead
    assert (len(dead) >= 3) == (not isinstance(layers[-1], nn.LeakyReLU | nn.ELU))


@pytest.mark.parametrize("name", ["cnn", "resnet", "rnn"])
def test_models_of_every_kind_can_be_watched(coordinator: dr.Coordinator, rng: np.random.Generator, name: str) -> None:
    models = {"cnn": nn.cnn((8, 8, 1), 10), "resnet": nn.resnet(8, (8, 8, 1), 10), "rnn": nn.rnn(20, 10, (8, 8))}
    data = dr.Dataset(rng.standard_normal((90, 64)).astype(np.float32), rng.integers(0, 10, 90))
    _, result = fit(coordinator, data, dr.Watch(every=1), model=models[name], batch_size=29, epochs=1)
    assert [step.step for step in result.watched] == [0, 1, 2, 3]
    last = result.watched[-1]  # a batch of 3 samples for 4 shards
    numbers = [value for layer in last.layers for value in (layer.sparsity, layer.mean, layer.variance)]
    assert np.isfinite(numbers).all()
    assert last.layers[-1].num_units == 10
    assert any(param.gradient_norm > 0 for param in last.params)
    expected = {
        "cnn": ["0 Reshape", "3 MaxPool2d", "6 MaxPool2d", "7 Flatten", "9 ReLU", "10 Dense"],
        "resnet": [
            *("0 Reshape", "3 ReLU", "5 ReLU", "7 ReLU", "9 ReLU"),
            *("10 GlobalAvgPool2d", "11 Dense"),
        ],
        "rnn": ["0 Reshape", "1 RNN", "2 Dense"],
    }
    assert [layer.name for layer in last.layers] == expected[name]
    counted = {layer.name: sum(layer.preactivations) for layer in last.layers if layer.preactivations}
    assert (
        counted
        == {
            "cnn": {"3 MaxPool2d": 3 * 8 * 8 * 32, "6 MaxPool2d": 3 * 4 * 4 * 64, "9 ReLU": 3 * 128},
            "resnet": {"3 ReLU": 3 * 64 * 16, "5 ReLU": 3 * 64 * 16, "7 ReLU": 3 * 16 * 32, "9 ReLU": 3 * 4 * 64},
            "rnn": {},
        }[name]
    )


@pytest.mark.parametrize(
    "layers",
    [
        (nn.Conv2d(4, 3), nn.ReLU()),
        (nn.Conv2d(4, 3, groups=2), nn.ReLU(), nn.MaxPool2d(2)),
        (nn.Conv2d(2, 3, groups=2), nn.ReLU()),
        (nn.Flatten(), nn.Dense(20), nn.ELU()),
        (nn.Flatten(), nn.Dense(20), nn.Sigmoid()),
        (nn.Flatten(), nn.Dense(20), nn.PReLU()),
        (nn.Flatten(), nn.Dense(20), nn.RReLU()),
        (nn.Flatten(), nn.Dense(20, bias=False), nn.ReLU()),
        (nn.Flatten(), nn.Dense(20), nn.CReLU()),
        (nn.LayerNorm(), nn.ReLU()),
        (nn.BatchNorm(), nn.ReLU()),
        (nn.Residual([nn.Conv2d(2, 3), nn.ReLU()]), nn.ReLU()),
    ],
    ids=lambda layers: " ".join(type(layer).__name__ for layer in layers),
)
def test_what_goes_into_any_activation_is_counted(
    coordinator: dr.Coordinator, rng: np.random.Generator, layers: tuple[nn.Layer, ...]
) -> None:
    x, y = rng.standard_normal((30, 6, 4, 2)).astype(np.float32), rng.integers(0, 10, 30)

    options: dict[str, Any] = {"batch_size": 30, "shards": 4, "shuffle": False}
    model = nn.Sequential(*layers, nn.Flatten(), nn.Dense(10)).blueprint()
    coordinator.fit(model, (x, y), optim.SGD(1.0), epochs=2, **options)  # biases are 0 no more
    before, plain = copy_of(model), copy_of(model)
    coordinator.fit(plain, (x, y), optim.SGD(0.1), epochs=1, **options)
    (step,) = coordinator.fit(model, (x, y), optim.SGD(0.1), epochs=1, watch=dr.Watch(), **options).watched
    assert before.sha256() != model.sha256() == plain.sha256()
    number = next(i for i, layer in enumerate(layers) if isinstance(layer, _ACTIVATIONS))
    inputs = before.activations(x)[number - 1]
    if isinstance(before.layers[0], nn.BatchNorm):  # in training it takes the statistics of a shard
        shards = [before.layers[0].forward(x[first:stop], nn.PlainPass(training=True)) for first, stop in bounds(30, 4)]
        inputs = np.concatenate(shards)
    seen = next(layer for layer in step.layers if int(layer.name.split()[0]) >= number)
    assert seen.preactivations == distribution(inputs)


def copy_of(model: nn.Sequential) -> nn.Sequential:
    copy = model.blueprint().build(model.input_shape)
    copy.bind(model.values.copy())
    return copy


_ACTIVATIONS = nn.ReLU, nn.ELU, nn.Sigmoid, nn.PReLU, nn.RReLU, nn.CReLU


def test_a_watch_must_be_one(coordinator: dr.Coordinator, digits: dr.data.Split) -> None:
    with pytest.raises(TypeError, match=r"watch=5: expected an object of type Watch"):
        fit(coordinator, digits.train, 5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Watch\(every=0\): must be at least 1"):
        dr.Watch(0)

"""Training gives the same, and the right, result wherever it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn, optim
from dist_relu.nn.description import copy_unbuilt
from tests import twin
from tests.conftest import small_model

SHARDS = 4
OPTIMIZERS = [
    optim.SGD(lr=0.1),
    optim.SGD(lr=optim.Cosine(0.1, epochs=2), momentum=0.9, weight_decay=1e-4),
    optim.SGD(lr=0.1, momentum=0.9, nesterov=True),
    optim.Adam(lr=optim.WarmUp(optim.Constant(0.002), epochs=1), weight_decay=1e-4),
    optim.AdamW(lr=0.002),
]


def digest(
    coordinator: dr.Coordinator, data: dr.Dataset, optimizer: optim.Optimizer, *, seed: int = 1, batch_size: int = 50
) -> str:
    model = small_model()
    coordinator.fit(model, data, optimizer, epochs=2, batch_size=batch_size, shards=SHARDS, seed=seed)
    return model.sha256()


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: type(optimizer).__name__)
def test_training_gives_the_same_bits_on_any_number_of_workers(
    coordinator: dr.Coordinator, few_digits: dr.data.Split, optimizer: optim.Optimizer
) -> None:
    with dr.start(backend="serial") as serial:
        assert digest(coordinator, few_digits.train, optimizer) == digest(serial, few_digits.train, optimizer)


def test_training_convolutions_gives_the_same_bits_on_any_number_of_workers(
    coordinator: dr.Coordinator, few_digits: dr.data.Split
) -> None:
    def digest_of_images(coordinator: dr.Coordinator) -> str:
        model = nn.Sequential(
            nn.Reshape((8, 8, 1)),
            *(nn.Conv2d(16, 3), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(24, 3, groups=2), nn.ReLU()),
            *(nn.Conv2d(24, 3, groups=24, bias=False), nn.AvgPool2d(2), nn.Conv2d(32, 1)),
            *(nn.Flatten(), nn.Dense(10)),
        )
        coordinator.fit(model, few_digits.train, optim.SGD(momentum=0.9), epochs=1, batch_size=50, shards=SHARDS)
        assert coordinator.evaluate(model, few_digits.test).accuracy
        return model.sha256()

    with dr.start(backend="serial") as serial:
        assert digest_of_images(coordinator) == digest_of_images(serial)


@pytest.mark.parametrize(("num_samples", "batch_size"), [(4, 4), (101, 7), (103, 50), (64, 64), (65, 64)])
def test_samples_that_do_not_divide_evenly_change_nothing(
    coordinator: dr.Coordinator, few_digits: dr.data.Split, num_samples: int, batch_size: int
) -> None:
    data = dr.Dataset(few_digits.train.x[:num_samples], few_digits.train.y[:num_samples])
    with dr.start(backend="serial") as serial:
        expected = digest(serial, data, optim.SGD(momentum=0.9), batch_size=batch_size)
    assert digest(coordinator, data, optim.SGD(momentum=0.9), batch_size=batch_size) == expected


LAYERS = [
    pytest.param(lambda: (nn.Dense(30), nn.BatchNorm(), nn.ReLU(), nn.Dense(10)), id="BatchNorm"),
    pytest.param(lambda: (nn.Dense(30), nn.LayerNorm(), nn.ReLU(), nn.Dropout(0.3), nn.Dense(10)), id="Dropout"),
    pytest.param(lambda: (nn.Dense(30), nn.ReLU(), nn.ActivityPenalty(0.01), nn.Dense(10)), id="ActivityPenalty"),
    pytest.param(
        lambda: (nn.Dense(300), nn.Residual([nn.Dense(300), nn.ReLU(), nn.Dense(300)]), nn.ReLU(), nn.Dense(10)),
        id="Residual",
    ),
    pytest.param(lambda: (nn.Standardize([0.3, 0.2], [0.4, 0.1]), nn.Dense(10)), id="Standardize"),
    pytest.param(lambda: (Whole(), nn.Embedding(2, 3), nn.LayerNorm(), Flat(), nn.Dense(10)), id="Embedding"),
]


@dataclass(eq=False)
class Flat(nn.Layer):
    """A layer of the user's own, which hands on memory of another layer."""

    _shape: tuple[int, ...] = field(init=False, default=())

    def build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        self._shape = input_shape
        return (int(np.prod(input_shape)),)

    def params(self) -> list[nn.Param]:
        return []

    def forward(self, x: twin.Array, run: nn.Pass = nn.PLAIN) -> twin.Array:
        return x.reshape(len(x), -1)

    def backward(self, dy: twin.Array, run: nn.Pass = nn.PLAIN, *, wants_dx: bool = True) -> twin.Array:
        return dy.reshape(len(dy), *self._shape)


@dataclass(eq=False)
class Whole(nn.Layer):
    """Makes symbols of numbers: x without its fractions."""

    def build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return input_shape

    def params(self) -> list[nn.Param]:
        return []

    def forward(self, x: twin.Array, run: nn.Pass = nn.PLAIN) -> twin.Array:
        y = run.empty(x.shape, x.dtype)
        y[...] = np.floor(x)
        return y

    def backward(self, dy: twin.Array, run: nn.Pass = nn.PLAIN, *, wants_dx: bool = True) -> twin.Array:
        return dy


@pytest.mark.parametrize("layers", LAYERS)
def test_every_kind_of_layer_trains_with_the_same_bits(
    coordinator: dr.Coordinator, few_digits: dr.data.Split, layers: Callable[[], list[nn.Layer]]
) -> None:
    def trained(on: dr.Coordinator) -> str:
        model = nn.Sequential(*layers())
        on.fit(model, few_digits.train, optim.SGD(0.01, momentum=0.9), epochs=2, batch_size=50, shards=SHARDS, seed=1)
        return model.sha256()

    with dr.start(backend="serial") as serial:
        assert trained(coordinator) == trained(serial)


@pytest.mark.parametrize(
    "activations",
    [(nn.PReLU(40), nn.GELU(), nn.SwiGLU()), (nn.RReLU(), nn.CReLU(), nn.PReLU()), (nn.Mish(), nn.Tanh(), nn.ELU())],
    ids=repr,
)
def test_every_activation_gives_the_same_bits_on_any_number_of_workers(
    coordinator: dr.Coordinator, few_digits: dr.data.Split, activations: tuple[nn.Layer, nn.Layer, nn.Layer]
) -> None:
    def digest_on(where: dr.Coordinator) -> str:
        first, second, third = map(copy_unbuilt, activations)
        model = nn.Sequential(nn.Dense(40), first, nn.Dense(20), second, nn.Dense(20), third, nn.Dense(10))
        where.fit(model, few_digits.train, optim.SGD(lr=0.02), epochs=1, batch_size=50, shards=SHARDS, seed=1)
        return model.sha256()

    with dr.start(backend="serial") as serial:
        assert digest_on(coordinator) == digest_on(serial)


def test_another_seed_gives_another_model(coordinator: dr.Coordinator, few_digits: dr.data.Split) -> None:
    first, second = (digest(coordinator, few_digits.train, optim.SGD(), seed=seed) for seed in (1, 2))
    assert first != second


def test_losses_are_those_of_plain_numpy(coordinator: dr.Coordinator, few_digits: dr.data.Split) -> None:
    model = small_model("float64").build((64,)).initialize(seed=3)
    reference = twin.Mlp([view.copy() for view in model.views(model.values)])
    result = coordinator.fit(
        model,
        few_digits.train,
        optim.SGD(lr=0.05, momentum=0.9),
        epochs=2,
        batch_size=100,
        shards=SHARDS,
        shuffle=False,
    )
    expected = [
        reference.step(few_digits.train.x[i : i + 100], few_digits.train.y[i : i + 100], 0.05, 0.9)
        for _ in range(2)
        for i in range(0, len(few_digits.train), 100)
    ]
    np.testing.assert_allclose(result.losses, expected, rtol=1e-9)


def test_the_accuracy_of_a_step_is_that_of_the_model_before_it(
    coordinator: dr.Coordinator, few_digits: dr.data.Split
) -> None:
    data, batch, model = (few_digits.train.x[:200], few_digits.train.y[:200]), few_digits.train.x[:100], small_model()
    train = partial(coordinator.fit, model, data, optim.SGD(), epochs=1, batch_size=100, shuffle=False, shards=SHARDS)
    train()
    before = coordinator.evaluate(model, (batch, few_digits.train.y[:100])).accuracy
    accuracies = train().accuracies
    assert accuracies is not None
    assert accuracies.shape == (2,)
    assert accuracies[0] == before


def test_there_is_no_accuracy_without_classes(coordinator: dr.Coordinator, rng: np.random.Generator) -> None:
    data = rng.normal(size=(40, 3)), rng.normal(size=(40, 2))
    result = coordinator.fit(nn.Sequential(nn.Dense(2)), data, optim.SGD(), epochs=1, batch_size=20, shards=SHARDS)
    assert result.accuracies is None


@pytest.mark.parametrize("loss", [nn.CrossEntropy(), nn.MeanSquaredError()])
def test_gradients_agree_with_finite_differences(
    coordinator: dr.Coordinator, rng: np.random.Generator, loss: nn.Loss
) -> None:
    model = nn.Sequential(nn.Dense(60), nn.ReLU(), nn.Dense(3), nn.Softmax(), dtype="float64")
    model.build((300,)).initialize(seed=5)
    x = rng.standard_normal((11, 300))
    y = rng.integers(0, 3, 11) if isinstance(loss, nn.CrossEntropy) else rng.standard_normal((11, 3))
    gradients = coordinator.gradients(model, (x, y), loss=loss, shards=SHARDS)

    def loss_at(values: twin.Array) -> float:
        before = model.values
        assert before is not None
        model.bind(values)
        outputs = model.forward(x)
        model.bind(before)
        if isinstance(loss, nn.CrossEntropy):
            return twin.cross_entropy(outputs, y)
        return float(((outputs - y) ** 2).mean())

    for _ in range(10):
        direction = rng.standard_normal(model.num_params)
        direction /= np.linalg.norm(direction)
        difference = (loss_at(model.values + 1e-5 * direction) - loss_at(model.values - 1e-5 * direction)) / 2e-5
        along = sum(
            float((gradient * part).sum())
            for gradient, part in zip(gradients.values(), model.views(direction), strict=True)
        )
        assert along == pytest.approx(difference, rel=1e-6, abs=1e-9)


def test_a_loss_that_is_no_number_stops_training_and_names_the_step(
    coordinator: dr.Coordinator, few_digits: dr.data.Split
) -> None:
    model = small_model()
    with pytest.raises(dr.TrainingDiverged, match=r"became (nan|inf) in step \d+ \(epoch \d+\)"):
        coordinator.fit(model, few_digits.train, optim.SGD(lr=1e9), epochs=3, batch_size=100, shards=SHARDS)
    assert np.isfinite(model.values).all()


def test_targets_can_be_real_numbers(coordinator: dr.Coordinator, rng: np.random.Generator) -> None:
    x = rng.standard_normal((500, 6))
    y = x @ rng.standard_normal((6, 2))
    model = nn.Sequential(nn.Dense(2))
    coordinator.fit(model, (x, y), optim.Adam(lr=0.05), epochs=30, batch_size=50, shards=SHARDS)
    result = coordinator.evaluate(model, (x, y))
    assert result.loss < 1e-4
    assert result.accuracy is None


def test_training_goes_on_from_the_parameters_that_a_model_has(
    coordinator: dr.Coordinator, few_digits: dr.data.Split
) -> None:
    model = small_model()
    first = coordinator.fit(model, few_digits.train, optim.SGD(), epochs=2, batch_size=50, shards=SHARDS)
    second = coordinator.fit(model, few_digits.train, optim.SGD(), epochs=1, batch_size=50, shards=SHARDS)
    assert second.epochs[0].loss < first.epochs[-1].loss


def test_progress_is_told_at_the_end_of_every_epoch(coordinator: dr.Coordinator, few_digits: dr.data.Split) -> None:
    seen: list[int] = []
    coordinator.fit(
        small_model(),
        few_digits.train,
        optim.SGD(),
        epochs=3,
        batch_size=150,
        shards=SHARDS,
        on_progress=lambda progress: seen.append(progress.step),
    )
    assert {3, 6, 9} <= set(seen)

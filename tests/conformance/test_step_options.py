"""What needs the whole gradient, or several batches of it: the right values, and the same bits wherever it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn, optim
from dist_relu.data import Augment
from dist_relu.nn.layer import PLAIN, Layer, Param, Pass, Shape
from tests import twin
from tests.conftest import small_model
from tests.twin import Array

SHARDS = 4
BATCH = 100
CASES: dict[str, tuple[optim.Optimizer, dict[str, Any]]] = {
    "rmsprop": (optim.RMSprop(0.001), {}),
    "momentum-rmsprop": (optim.RMSprop(0.001, momentum=0.9, weight_decay=1e-3), {}),
    "lars": (optim.LARS(2.0, weight_decay=1e-3, trust=0.01), {}),
    "lamb": (optim.LAMB(0.01, weight_decay=0.01), {}),
    "clip-norm": (optim.SGD(0.1, momentum=0.9), {"clip_norm": 0.5}),
    "clip-value": (optim.SGD(0.1, momentum=0.9), {"clip_value": 0.01}),
    "ema": (optim.SGD(0.1, momentum=0.9), {"ema_decay": 0.9}),
    "accumulate": (optim.SGD(0.1, momentum=0.9), {"accumulate": 3}),
    "stale": (optim.SGD(0.1, momentum=0.9), {"stale_gradients": True}),
    "augment": (optim.SGD(0.1), {"augment": Augment(crop=1, flip=True, mixup=0.3)}),
    "groups": (
        optim.Groups(
            optim.SGD(0.1, momentum=0.9, weight_decay=0.01),
            [optim.Group("biases", weight_decay=0.0), optim.Group("1.*", lr_scale=0.5)],
        ),
        {},
    ),
    "groups, layer by layer": (optim.no_decay(optim.LAMB(0.01, weight_decay=0.01), "1.*"), {"clip_norm": 0.5}),
    "everything": (
        optim.LAMB(0.01, weight_decay=0.01),
        {
            "clip_norm": 0.5,
            "clip_value": 0.1,
            "ema_decay": 0.9,
            "accumulate": 2,
            "stale_gradients": True,
            "augment": Augment(crop=2, mixup=0.5),
        },
    ),
}


@final
@dataclass(eq=False)
class CountingBatches(Layer):
    """Passes samples through, and keeps a running mean of them."""

    def build(self, input_shape: Shape) -> Shape:
        self.mean = Param("mean", input_shape, nn.Constant(), 1, 1, momentum=0.5)
        return input_shape

    def params(self) -> Sequence[Param]:
        return [self.mean]

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        run.statistic(self.mean, x.mean(axis=0))
        return x

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        return dy


def model_with_statistics(dtype: str = "float32") -> nn.Sequential:
    return nn.Sequential(CountingBatches(), *small_model().layers, dtype=dtype)


def digests(
    coordinator: dr.Coordinator, data: dr.Dataset, optimizer: optim.Optimizer, options: dict[str, Any]
) -> list[str]:
    model = model_with_statistics()
    result = coordinator.fit(model, data, optimizer, epochs=2, batch_size=64, shards=SHARDS, seed=1, **options)
    return [model.sha256()] + ([result.average.sha256()] if result.average else [])


@pytest.mark.parametrize("case", CASES)
def test_every_option_gives_the_same_bits_on_any_number_of_workers(
    coordinator: dr.Coordinator, few_digits: dr.data.Split, case: str
) -> None:
    with dr.start(backend="serial") as serial:
        assert digests(coordinator, few_digits.train, *CASES[case]) == digests(serial, few_digits.train, *CASES[case])


@pytest.mark.parametrize(("num_samples", "batch_size"), [(4, 4), (66, 8), (101, 7)])
def test_batches_that_do_not_come_out_even_are_accumulated_alike(
    coordinator: dr.Coordinator, few_digits: dr.data.Split, num_samples: int, batch_size: int
) -> None:
    data = dr.Dataset(few_digits.train.x[:num_samples], few_digits.train.y[:num_samples])
    results = []
    with dr.start(backend="serial") as serial:
        for place in (coordinator, serial):
            model = small_model()
            fitted = place.fit(
                model, data, optim.SGD(0.1), epochs=2, batch_size=batch_size, shards=SHARDS, seed=1, accumulate=3
            )
            results.append((model.sha256(), list(fitted.losses)))
    assert results[0] == results[1]
    assert len(results[0][1]) == 2 * -(-num_samples // (3 * batch_size))


Rule = Callable[[list[Array], list[Array], list[list[Array]]], None]
"""Take a step in place, given parameters, gradients and two lists of states."""


def train_plainly(model: nn.Sequential, data: dr.Dataset, rule: Rule) -> list[Array]:
    """Two epochs in the order of the data; returns the parameters in layer order."""
    params = [view.copy() for view in model.views(model.values)]
    states = [[np.zeros_like(p) for p in params] for _ in range(2)]
    for _ in range(2):
        for i in range(0, len(data), BATCH):
            gradients = twin.Mlp(params).gradients(data.x[i : i + BATCH], data.y[i : i + BATCH])
            weights, biases = gradients[: len(params) // 2], gradients[len(params) // 2 :]
            rule(params, [g for pair in zip(weights, biases, strict=True) for g in pair], states)
    return params


def gentle(params: list[Array], gradients: list[Array], lr: float = 0.1) -> None:
    for p, g in zip(params, gradients, strict=True):
        p[...] = p - lr * g


def norm(arrays: Sequence[Array]) -> float:
    return float(np.sqrt(sum((a**2).sum() for a in arrays)))


def clip_norm(params: list[Array], gradients: list[Array], states: list[list[Array]]) -> None:
    factor = min(1.0, 0.3 / (norm(gradients) + 1e-6))
    gentle(params, [factor * g for g in gradients])


def clip_value(params: list[Array], gradients: list[Array], states: list[list[Array]]) -> None:
    gentle(params, [np.clip(g, -0.01, 0.01) for g in gradients])


def clip_both(params: list[Array], gradients: list[Array], states: list[list[Array]]) -> None:
    clip_norm(params, [np.clip(g, -0.05, 0.05) for g in gradients], states)


def stale(params: list[Array], gradients: list[Array], states: list[list[Array]]) -> None:
    gentle(params, states[0])
    for before, g in zip(states[0], gradients, strict=True):
        before[...] = g


def lars(params: list[Array], gradients: list[Array], states: list[list[Array]]) -> None:
    for p, g, v in zip(params, gradients, states[0], strict=True):
        rate, decay = 2.0, 0.0
        if p.ndim > 1:
            decay = 0.01
            rate *= 0.01 * norm([p]) / (norm([g]) + decay * norm([p]))
        v[...] = 0.9 * v + rate * (g + decay * p)
        p[...] = p - v


def lamb(params: list[Array], gradients: list[Array], states: list[list[Array]]) -> None:
    lamb.step += 1  # type: ignore[attr-defined]
    t = lamb.step  # type: ignore[attr-defined]
    for p, g, m, v in zip(params, gradients, *states, strict=True):
        m[...] = 0.9 * m + 0.1 * g
        v[...] = 0.999 * v + 0.001 * g**2
        direction = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-6)
        if p.ndim > 1:
            direction += 0.1 * p
            direction *= norm([p]) / norm([direction])
        p[...] = p - 0.01 * direction


@pytest.mark.parametrize(
    ("rule", "optimizer", "options"),
    [
        (clip_norm, optim.SGD(0.1), {"clip_norm": 0.3}),
        (clip_value, optim.SGD(0.1), {"clip_value": 0.01}),
        (clip_both, optim.SGD(0.1), {"clip_value": 0.05, "clip_norm": 0.3}),
        (lambda p, g, s: gentle(p, g), optim.SGD(0.1), {"clip_norm": 1e9, "clip_value": 1e9}),
        (stale, optim.SGD(0.1), {"stale_gradients": True}),
        (lars, optim.LARS(2.0, weight_decay=0.01, trust=0.01), {}),
        (lamb, optim.LAMB(0.01, weight_decay=0.1), {}),
    ],
    ids=["clip-norm", "clip-value", "clip-both", "clip-nothing", "stale", "lars", "lamb"],
)
def test_steps_are_those_of_plain_numpy(
    coordinator: dr.Coordinator,
    few_digits: dr.data.Split,
    rule: Rule,
    optimizer: optim.Optimizer,
    options: dict[str, Any],
) -> None:
    lamb.step = 0  # type: ignore[attr-defined]
    model = small_model("float64").build((64,)).initialize(seed=3)
    expected = train_plainly(model, few_digits.train, rule)
    coordinator.fit(
        model, few_digits.train, optimizer, epochs=2, batch_size=BATCH, shards=SHARDS, shuffle=False, **options
    )
    for param, value in zip(model.params, expected, strict=True):
        np.testing.assert_allclose(param.value, value, rtol=1e-8, atol=1e-12)


def test_batches_that_are_accumulated_are_one_large_batch(
    coordinator: dr.Coordinator, few_digits: dr.data.Split
) -> None:
    models = [model_with_statistics("float64").build((64,)).initialize(seed=3) for _ in range(2)]
    results = [
        coordinator.fit(
            model, few_digits.train, optim.Adam(0.01), epochs=2, batch_size=size, shards=SHARDS, accumulate=accumulate
        )
        for model, size, accumulate in zip(models, (60, 120), (2, 1), strict=True)
    ]
    assert len(results[0].losses) == len(results[1].losses)
    np.testing.assert_allclose(results[0].losses, results[1].losses, rtol=1e-9)
    np.testing.assert_allclose(models[0].values, models[1].values, rtol=1e-6, atol=1e-9)


def test_the_average_follows_the_parameters(coordinator: dr.Coordinator, few_digits: dr.data.Split) -> None:
    model = small_model("float64").build((64,)).initialize(seed=3)
    average = model.values.copy()
    one_step = dr.Dataset(few_digits.train.x[:BATCH], few_digits.train.y[:BATCH])
    for _ in range(3):
        coordinator.fit(model, one_step, optim.SGD(0.1), epochs=1, batch_size=BATCH, shards=SHARDS, shuffle=False)
        average = 0.8 * average + 0.2 * model.values
    other = small_model("float64").build((64,)).initialize(seed=3)
    result = coordinator.fit(
        other, one_step, optim.SGD(0.1), epochs=3, batch_size=BATCH, shards=SHARDS, shuffle=False, ema_decay=0.8
    )
    assert result.average is not None
    assert other.sha256() == model.sha256()
    np.testing.assert_allclose(result.average.values, average, rtol=1e-9, atol=1e-12)
    assert coordinator.evaluate(result.average, one_step).loss > result.epochs[-1].loss


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [(optim.LAMB(0.01, weight_decay=0.1), {}), (optim.LARS(weight_decay=0.1), {}), (optim.SGD(), {"clip_norm": 1e-9})],
    ids=["lamb", "lars", "clip-norm"],
)
def test_running_means_are_nobody_elses_business(
    coordinator: dr.Coordinator, few_digits: dr.data.Split, optimizer: optim.Optimizer, options: dict[str, Any]
) -> None:
    model = model_with_statistics("float64")
    result = coordinator.fit(
        model,
        few_digits.train,
        optimizer,
        epochs=1,
        batch_size=215,
        shards=SHARDS,
        shuffle=False,
        ema_decay=0.9,
        **options,
    )
    means = [few_digits.train.x[i : i + 215].mean(axis=0) for i in (0, 215)]
    expected = 0.25 * means[0] + 0.5 * means[1]
    assert len(few_digits.train) == 2 * 215
    assert result.average is not None
    for trained in (model, result.average):
        np.testing.assert_allclose(trained.params[0].value, expected, rtol=1e-5, atol=1e-9)


def test_augmentation_changes_training_and_nothing_else(coordinator: dr.Coordinator, digits: dr.data.Split) -> None:
    models = [small_model() for _ in range(2)]
    for model, augment in zip(models, (None, Augment(crop=1, mixup=0.2)), strict=True):
        coordinator.fit(
            model, digits.train, optim.Adam(0.01), epochs=5, batch_size=50, shards=SHARDS, seed=1, augment=augment
        )
    plain, augmented = models
    assert plain.sha256() != augmented.sha256()
    assert (coordinator.evaluate(augmented, digits.test).accuracy or 0) > 0.9


@pytest.mark.parametrize(
    "options", [{"clip_norm": 0}, {"clip_value": -1}, {"ema_decay": 1.0}, {"accumulate": 0}], ids=str
)
def test_options_that_make_no_sense_are_refused(
    coordinator: dr.Coordinator, few_digits: dr.data.Split, options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        coordinator.fit(small_model(), few_digits.train, optim.SGD(), epochs=1, batch_size=50, shards=SHARDS, **options)


def test_samples_that_are_no_images_are_not_cropped(coordinator: dr.Coordinator, rng: np.random.Generator) -> None:
    data = dr.Dataset(rng.standard_normal((20, 6)), rng.integers(0, 2, 20))
    with pytest.raises(dr.DataError, match="no images"):
        coordinator.fit(
            small_model(), data, optim.SGD(), epochs=1, batch_size=10, shards=SHARDS, augment=Augment(flip=True)
        )

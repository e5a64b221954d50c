"""Statistics over the whole batch: of all shards, with the same bits wherever these are computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn, optim
from dist_relu.nn.layer import PLAIN, Layer, Param, Pass, Shape
from tests.twin import Array

Norm = partial(nn.BatchNorm, scope="batch")
LARGE = 50


def dense(dropout: float = 0.2, dtype: str = "float32") -> nn.Sequential:
    """With a gradient that is multiplied out by the owners of its chunks, and sums within branches."""
    return nn.Sequential(
        nn.Dense(260),
        Norm(),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Residual([nn.Dense(260), Norm(), nn.ReLU(), nn.Dense(260), Norm()]),
        nn.ReLU(),
        nn.Parallel([[nn.Dense(5), Norm()], [nn.Dense(7), Norm(), nn.Tanh()]]),
        nn.Dense(10),
        dtype=dtype,
    )


def convolutional(dtype: str = "float32") -> nn.Sequential:
    block = nn.Residual(
        [nn.Conv2d(6, 3, stride=2, bias=False), Norm(), nn.ReLU(), nn.Conv2d(6, 3, bias=False), Norm()],
        [nn.Conv2d(6, 1, stride=2, bias=False), Norm()],
    )
    layers = nn.Reshape((8, 8, 1)), Norm(), nn.Conv2d(4, 3, bias=False), Norm(), nn.ReLU(), block, nn.ReLU()
    return nn.Sequential(*layers, nn.GlobalAvgPool2d(), nn.Dense(10), dtype=dtype)


MODELS: dict[str, Callable[[], nn.Sequential]] = {"dense": dense, "convolutional": convolutional}


def fit(
    coordinator: dr.Coordinator, model: nn.Sequential, data: dr.Dataset, shards: int = 4, **options: Any
) -> dr.FitResult:
    rule = optim.SGD(0.1, momentum=0.9)
    return coordinator.fit(model, data, rule, **{"epochs": 1, "batch_size": 64, "seed": 1, **options}, shards=shards)


def first(split: dr.data.Split, num_samples: int) -> dr.Dataset:
    return dr.Dataset(split.train.x[:num_samples], split.train.y[:num_samples])


@pytest.mark.parametrize(
    ("shards", "options"),
    [
        pytest.param(4, {}, id="plain"),
        pytest.param(7, {"accumulate": 2, "clip_norm": 1.0, "ema_decay": 0.9}, id="accumulated"),
        pytest.param(5, {"batch_size": 16}, id="with empty shards"),
        pytest.param(4, {"watch": dr.Watch(2)}, id="watched"),
    ],
)
@pytest.mark.parametrize("name", MODELS)
def test_the_bits_are_the_same_on_any_number_of_workers(
    coordinator: dr.Coordinator, digits: dr.data.Split, name: str, shards: int, options: dict[str, Any]
) -> None:
    data = first(digits, 16 * 17 + 3)
    results = []
    with dr.start(backend="serial") as serial:
        for place in (coordinator, serial):
            model = MODELS[name]()
            result = fit(place, model, data, shards, **options)
            results.append((model.sha256(), list(result.losses), result.average and result.average.sha256()))
    assert results[0] == results[1]
    assert len(set(results[0][1])) > 1


@pytest.mark.parametrize("model", [partial(dense, dropout=0), convolutional], ids=MODELS)
def test_shards_make_no_difference_but_for_rounding(
    coordinator: dr.Coordinator, digits: dr.data.Split, model: Callable[..., nn.Sequential]
) -> None:
    data = first(digits, 99)
    models = [model(dtype="float64") for _ in range(2)]
    losses = [
        fit(coordinator, each, data, shards, batch_size=33, epochs=2).losses
        for each, shards in zip(models, (4, 7), strict=True)
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-10)
    np.testing.assert_allclose(models[0].values, models[1].values, rtol=1e-7, atol=1e-9)


def test_running_statistics_are_those_of_the_batch(coordinator: dr.Coordinator, digits: dr.data.Split) -> None:
    model = nn.Sequential(Norm(momentum=0.25), nn.Dense(10))
    data = first(digits, 41)
    fit(coordinator, model, data, batch_size=41)
    _, _, mean, variance = model.params[:4]
    np.testing.assert_allclose(mean.value, 0.25 * data.x.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(variance.value, 0.75 + 0.25 * data.x.var(axis=0, ddof=1), rtol=1e-5)


def test_what_is_watched_has_mean_0_and_variance_1_over_the_batch(
    coordinator: dr.Coordinator, digits: dr.data.Split
) -> None:
    model = nn.Sequential(nn.Dense(20), Norm(), nn.Tanh(), nn.Dense(10))
    step, *_ = fit(coordinator, model, digits.train, watch=dr.Watch()).watched
    seen = step.layers[1]
    assert seen.mean == pytest.approx(0, abs=1e-5)
    assert seen.variance == pytest.approx(1, rel=1e-3)


@final
@dataclass(eq=False)
class Centred(Layer):
    """Takes the mean over the batch away, as a layer of somebody's own may.

    It fails where a sample is large, or asks for no sums there if it is `unlike` others.
    """

    unlike: bool = False

    def build(self, input_shape: Shape) -> Shape:
        return input_shape

    def params(self) -> Sequence[Param]:
        return []

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        y = run.empty(x.shape, x.dtype)
        if x.max() > LARGE:
            if not self.unlike:
                raise ZeroDivisionError("too large")
            return y
        sums = run.batch_sums(np.array([len(x), *x.sum(axis=0, dtype=float)]))
        np.subtract(x, sums[1:] / sums[0], out=y, casting="same_kind")
        return y

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        return dy


@pytest.mark.parametrize(
    ("unlike", "error", "message"),
    [
        pytest.param(False, ZeroDivisionError, "too large", id="error"),
        pytest.param(True, RuntimeError, r"Layers must call run\.batch_sums alike in every pass", id="unlike"),
    ],
)
def test_a_pass_that_fails_ends_the_call_and_leaves_the_last_step(
    coordinator: dr.Coordinator, digits: dr.data.Split, unlike: bool, error: type[Exception], message: str
) -> None:
    def new_model() -> nn.Sequential:
        return nn.Sequential(Centred(unlike), nn.Dense(6), Norm(), nn.ReLU(), nn.Dense(10))

    expected, model = new_model(), new_model()
    fit(coordinator, expected, first(digits, 128), shuffle=False)
    x, y = digits.train.x[:192].copy(), digits.train.y[:192]
    x[150] = 2 * LARGE
    with pytest.raises(error, match=message):
        fit(coordinator, model, dr.Dataset(x, y), shuffle=False)
    assert model.sha256() == expected.sha256()
    fit(coordinator, new_model(), digits.train)

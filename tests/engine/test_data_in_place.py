"""What does not suit a model is refused before training: symbols, images, batches; the rest is said."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn, optim
from tests.twin import Array


@pytest.fixture(scope="module")
def coordinator() -> Iterator[dr.Coordinator]:
    with dr.start(backend="serial") as started:
        yield started


def fit(coordinator: dr.Coordinator, layers: list[nn.Layer], x: Any, y: Any = None, **options: Any) -> nn.Sequential:
    model = nn.Sequential(*layers, dtype=options.pop("dtype", "float32"))
    y = np.arange(len(x)) % 2 if y is None else y
    coordinator.fit(model, (x, y), optim.SGD(0.01), **({"epochs": 1, "batch_size": 8} | options))
    return model


def symbols_with(value: float) -> Array:
    """Symbols of which the last of the last sample is another."""
    x = np.zeros((32, 3))
    x[31, 2] = value
    return x


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.5, r"x\[31, 2\] is 1.5; expected whole numbers"),
        (5, r"symbols from 0 to 5; expected 0 to 4"),
        (-1, r"symbols from -1 to 0; expected 0 to 4"),
        (1e300, r"symbols from 0 to 1\.0\d*e\+300; expected 0 to 4"),
    ],
)
@pytest.mark.parametrize(
    "front",
    [
        pytest.param(lambda inner: [nn.Reshape((3,)), *inner], id="reshaped"),
        pytest.param(lambda inner: [nn.Parallel([[nn.Flatten(), *inner], [nn.Dense(1)]])], id="a branch"),
        pytest.param(lambda inner: [nn.Residual(inner, [nn.Dense(2)])], id="a body"),
    ],
)
def test_all_samples_are_checked_for_symbols_before_training(
    coordinator: dr.Coordinator, front: Any, value: float, message: str
) -> None:
    layers = [*front([nn.Embedding(5, 2), nn.Flatten(), nn.Dense(2)]), nn.Dense(2)]
    model = nn.Sequential(*layers)
    with pytest.raises(dr.DataError, match=message):
        coordinator.fit(model, (symbols_with(value), np.arange(32) % 2), optim.SGD(), epochs=1, batch_size=8)
    assert not model.has_values
    model.build((3,)).initialize()
    for call in (coordinator.forward, coordinator.activations):
        with pytest.raises(dr.DataError, match=message):
            call(model, symbols_with(value))
    with pytest.raises(dr.DataError, match=message):
        coordinator.evaluate(model, (symbols_with(value), np.arange(32) % 2))


def test_symbols_that_float32_can_not_tell_apart_need_float64(coordinator: dr.Coordinator) -> None:
    x = np.array([[2**24 + 1], [2**24]])
    model = nn.Sequential(nn.Embedding(2**24 + 2, 1)).build((1,)).initialize()
    with pytest.raises(dr.DataError, match=r"x\[0, 0\] is 16777217, and from 16777216 on float32.*dtype float64"):
        coordinator.forward(model, x)
    with pytest.raises(dr.DataError, match="from 16777216 on float32"):
        model.forward(x.astype(np.float32))
    exact = nn.Sequential(*model.blueprint().layers, dtype="float64").build((1,))
    exact.bind(np.arange(2**24 + 2.0))
    assert coordinator.forward(exact, x).reshape(-1).tolist() == [2**24 + 1, 2**24]


def test_symbols_are_not_averaged(coordinator: dr.Coordinator) -> None:
    layers: list[nn.Layer] = [nn.Embedding(5, 2), nn.Flatten(), nn.Dense(2)]
    with pytest.raises(dr.DataError, match="averages samples, but the model looks them up as symbols"):
        fit(coordinator, layers, symbols_with(2), augment=dr.data.Augment(mixup=0.5))


def test_crops_know_from_the_model_that_channels_come_first(coordinator: dr.Coordinator) -> None:
    rng = np.random.default_rng(0)
    last = rng.random((16, 6, 6, 3), np.float32)
    first = np.ascontiguousarray(last.transpose(0, 3, 1, 2))
    rest = [nn.Conv2d(4, 3), nn.ReLU(), nn.GlobalAvgPool2d(), nn.Dense(2)]
    augment = dr.data.Augment(crop=1, flip=True)

    def layers(*front: nn.Layer) -> list[nn.Layer]:
        return [*front, *nn.Sequential(*rest).blueprint().layers]

    expected = fit(coordinator, layers(), last, augment=augment).sha256()
    assert fit(coordinator, layers(nn.FromNCHW()), first, augment=augment).sha256() == expected
    flat = layers(nn.Reshape((3, 6, 6)), nn.FromNCHW())
    assert fit(coordinator, flat, first.reshape(16, -1), augment=augment).sha256() == expected


@pytest.mark.parametrize(
    ("num_samples", "batch_size", "shards", "message"),
    [
        (32, 8, 8, r"a batch has 8 samples for 8 shards; expected at least 16. Pass shards <= 4 or batch_size=16"),
        (32, 15, 8, r"a batch has 2 samples for 8 shards; expected at least 16. Pass shards <= 1 or batch_size=16"),
        (33, 8, 4, r"the last batch of an epoch has 1 sample for 4 shards; expected at least 8. Pass batch_size=11"),
        (17, 16, 2, r"the last batch of an epoch has 1 sample"),
        (5, 5, 3, r"a batch has 5 samples for 3 shards; expected at least 6. Pass shards <= 2 or BatchNorm\(scope="),
    ],
)
def test_batch_norm_refuses_shards_of_one_sample(
    coordinator: dr.Coordinator, num_samples: int, batch_size: int, shards: int, message: str
) -> None:
    x = np.random.default_rng(0).standard_normal((num_samples, 3))
    dense = nn.Dense(4), nn.Residual([nn.Dense(4), nn.BatchNorm(), nn.ReLU()]), nn.Dense(2)
    with pytest.raises(dr.PartitionError, match=message):
        fit(coordinator, list(dense), x, batch_size=batch_size, shards=shards)


def test_batch_norm_over_the_batch_refuses_batches_of_one_sample(coordinator: dr.Coordinator) -> None:
    x = np.random.default_rng(0).standard_normal((33, 3))
    layers = nn.Dense(4), nn.BatchNorm(scope="batch"), nn.ReLU(), nn.Dense(2)
    fit(coordinator, list(layers), x, batch_size=31, shards=8)  # the last batch leaves shards empty
    message = (
        r"over the batch, and one sample has none: the last batch of an epoch has 1 sample; expected at least 2\. "
    )
    with pytest.raises(dr.PartitionError, match=message + r"Pass batch_size=9\."):
        fit(coordinator, list(layers), x, batch_size=8, shards=8)


def test_batch_norm_takes_shards_with_several_elements_of_each_channel(coordinator: dr.Coordinator) -> None:
    rng = np.random.default_rng(0)
    images: list[nn.Layer] = [nn.Conv2d(4, 3), nn.BatchNorm(), nn.ReLU(), nn.GlobalAvgPool2d(), nn.Dense(2)]
    fit(coordinator, images, rng.random((9, 6, 6, 1)), shards=8)
    rows: list[nn.Layer] = [nn.Dense(4), nn.BatchNorm(), nn.ReLU(), nn.Dense(2)]
    fit(coordinator, rows, rng.random((24, 3)), shards=4)
    model = nn.Sequential(*rows).build((3,)).initialize()
    with pytest.raises(dr.PartitionError, match="BatchNorm"):
        coordinator.gradients(model, (rng.random((7, 3)), np.arange(7) % 2), shards=4)


def test_layer_norm_over_a_single_channel_is_refused() -> None:
    with pytest.raises(ValueError, match="Layer 0: LayerNorm over the single channel"):
        nn.Sequential(nn.LayerNorm()).build((6, 1))


@pytest.mark.parametrize("y", [np.arange(32) % 2 * 1.0, np.eye(2)[np.arange(32) % 2]], ids=["0. and 1.", "one-hot"])
def test_real_targets_that_look_like_classes_are_taken_with_a_warning(coordinator: dr.Coordinator, y: Array) -> None:
    layers: list[nn.Layer] = [nn.Dense(2 if y.ndim > 1 else 1)]
    with pytest.warns(dr.DataWarning, match="taken for real targets, with the mean squared error.*for classes pass"):
        fit(coordinator, layers, np.ones((32, 3)), y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(coordinator, layers, np.ones((32, 3)), y, loss=nn.MeanSquaredError())


def test_whole_numbers_in_rows_are_no_targets_but_it_is_said_what_they_could_be(coordinator: dr.Coordinator) -> None:
    with pytest.raises(dr.DataError, match=r"y.astype\('float32'\).*y.argmax\(axis=1\)"):
        fit(coordinator, [nn.Dense(2)], np.ones((32, 3)), np.eye(2, dtype=int)[np.arange(32) % 2])


def test_truth_values_are_samples_everywhere(coordinator: dr.Coordinator) -> None:
    x = np.random.default_rng(0).random((32, 5)) > 0.5
    model = fit(coordinator, [nn.Dense(2)], x)
    assert (coordinator.forward(model, x) == coordinator.forward(model, x.astype(np.float32))).all()
    assert coordinator.relu(x).tolist() == x.tolist()

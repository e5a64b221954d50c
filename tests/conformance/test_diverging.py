"""Numbers that are NaN or infinite are found where they arise, and the step can be taken again anywhere."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn, optim
from tests.twin import Array

pytestmark = pytest.mark.filterwarnings("ignore:The samples are large")

RNG = np.random.default_rng(3)
X = RNG.standard_normal((70, 6)).astype("float32")
Y = RNG.integers(0, 3, 70)
IMAGES = RNG.standard_normal((70, 8, 8, 1)).astype("float32")
SAMPLE = 41
"""Without shuffling it is row 9 in the batch of step 2, which is in shard 2 of 4 then."""


def with_huge(x: Array) -> Array:
    x = x.copy()
    x[SAMPLE] = 3e38
    return x


@dataclass(eq=False)
class Spoils(nn.Layer):
    """The identity, which makes NaN of the gradients of samples that are huge there."""

    def build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return input_shape

    def params(self) -> Sequence[nn.Param]:
        return []

    def forward(self, x: Array, run: nn.Pass = nn.PLAIN) -> Array:
        y = run.empty(x.shape, x.dtype)
        y[...] = x
        self._is_huge = np.abs(x).max(axis=1) > 100
        return y

    def backward(self, dy: Array, run: nn.Pass = nn.PLAIN, *, wants_dx: bool = True) -> Array:
        dx = run.empty(dy.shape, dy.dtype)
        dx[...] = np.where(self._is_huge[:, None], np.nan, dy)
        return dx


def spoiled() -> nn.Sequential:
    return nn.Sequential(nn.Dense(6), Spoils(), nn.Dense(3))


def with_statistics(*layers: nn.Layer) -> nn.Sequential:
    """What is not finite in a shard is soon in all of them, forward or backward."""
    return nn.Sequential(*layers, nn.BatchNorm(scope="batch"), nn.Dense(3))


def cnn() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.2), nn.Dense(3))


TARGETS = X[:, :2].copy()
HUGE_TARGETS = with_huge(TARGETS)
CASES: dict[str, tuple[Callable[[], nn.Sequential], Any, dict[str, Any], str]] = {
    "forward": (lambda: nn.mlp((20, 20), 3), (with_huge(X), Y), {"layer": "0 Dense"}, "the output of layer 0 Dense is"),
    "fused": (cnn, (with_huge(IMAGES), Y), {"layer": "0 Conv2d"}, "the output of layer 0 Conv2d is"),
    "loss": (
        lambda: nn.mlp((20,), 2),
        (X, HUGE_TARGETS),
        {"layer": "MeanSquaredError"},
        r"the loss \(MeanSquaredError\) is not finite",
    ),
    "forward over the batch": (
        lambda: with_statistics(nn.Dense(4)),
        (with_huge(X), Y),
        {"layer": "0 Dense"},
        "the output of layer 0 Dense is",
    ),
    "backward over the batch": (
        lambda: with_statistics(nn.Dense(6), Spoils()),
        (np.where(np.arange(70)[:, None] == SAMPLE, np.float32(1e4), X), Y),
        {"layer": "1 Spoils"},
        "the gradient of the input of layer 1 Spoils is nan",
    ),
    "backward": (
        spoiled,
        (np.where(np.arange(70)[:, None] == SAMPLE, np.float32(1e4), X), Y),
        {"layer": "1 Spoils"},
        "the gradient of the input of layer 1 Spoils is nan",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_error_names_step_shard_layer_and_sample(coordinator: dr.Coordinator, case: str) -> None:
    make, data, expected, words = CASES[case]
    arguments: dict[str, Any] = {"batch_size": 16, "shards": 4, "shuffle": False}
    with coordinator.trainer(make(), data, optim.SGD(1e-3), **arguments) as trainer:
        with pytest.raises(dr.TrainingDiverged, match=rf"in step 2 \(epoch 0\)\. First in shard 2 {words}") as caught:
            trainer.fit(epochs=1)
        assert trainer.step == 2
        found = trainer.diagnose()
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.step, error.shard, error.sample) == (2, 2, SAMPLE)
    assert error.layer == expected["layer"]
    assert str(found) in str(error)
    assert error.state == trainer.state()
    with dr.start(backend="serial") as alone:
        again = alone.trainer(make(), data, optim.SGD(1e-3), state=error.state, **arguments)
        with pytest.raises(dr.TrainingDiverged) as caught, again:
            again.fit(steps=1)
    assert str(caught.value) == str(error)


def test_an_update_that_is_too_large_names_the_parameter(coordinator: dr.Coordinator) -> None:
    data = X, 100 * TARGETS
    trainer = coordinator.trainer(nn.mlp((8,), 2), data, optim.SGD(3e38, momentum=0.9), batch_size=16, shards=4)
    words = r"in step 0 .*the update makes \S+ (-?inf|nan)"
    with trainer, pytest.raises(dr.TrainingDiverged, match=words) as caught:
        trainer.fit(epochs=1)
    assert caught.value.parameter in trainer.model.names
    assert caught.value.shard is None


def test_a_step_that_goes_well_has_nothing_to_be_found(coordinator: dr.Coordinator) -> None:
    with coordinator.trainer(cnn(), (IMAGES, Y), optim.Adam(), batch_size=16, shards=4, accumulate=2) as trainer:
        assert trainer.diagnose() is None
        trainer.fit(steps=2)
        left = trainer.model.sha256()
        assert trainer.diagnose() is None
        assert trainer.model.sha256() == left


OPTIONS: dict[str, dict[str, Any]] = {
    "momentum": {"optimizer": optim.SGD(1e-3, momentum=0.9)},
    "adamw, accumulated, averaged": {"optimizer": optim.AdamW(0.01), "accumulate": 2, "ema_decay": 0.9},
    "lamb, clipped": {"optimizer": optim.LAMB(0.01), "clip_norm": 1.0},
    "stale": {"optimizer": optim.SGD(1e-3, momentum=0.9), "stale_gradients": True},
}


def skipping(coordinator: dr.Coordinator, case: str, options: str, **more: Any) -> dr.Trainer:
    make, data, *_ = CASES[case]
    arguments = {"batch_size": 16, "shards": 4, "shuffle": False, "on_nan": "skip", **OPTIONS[options]}
    return coordinator.trainer(make(), data, **arguments, **more)


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("fused", "momentum"),
        ("loss", "adamw, accumulated, averaged"),
        ("backward", "momentum"),
        ("backward", "adamw, accumulated, averaged"),
        ("backward", "lamb, clipped"),
        ("backward", "stale"),
    ],
)
def test_a_step_that_is_skipped_changes_nothing_and_counts(
    coordinator: dr.Coordinator, case: str, options: str
) -> None:
    bad = 2 // OPTIONS[options].get("accumulate", 1)
    with skipping(coordinator, case, options) as trainer:
        trainer.fit(steps=bad)
        before = trainer.state()
        trainer.fit(steps=1)
        skipped = trainer.state()
        assert skipped.vectors.tobytes() == before.vectors.tobytes()
        assert np.isnan(skipped.losses).tolist() == [False] * bad + [True]
        assert skipped.step == bad + 1
        result = trainer.fit(steps=2 * trainer.steps_per_epoch - trainer.step)
        end = trainer.state()
    finite = end.records[: trainer.steps_per_epoch][np.isfinite(end.losses[: trainer.steps_per_epoch])]
    assert np.isnan(end.losses).sum() == 2
    assert result.epochs[0].loss == pytest.approx(np.average(finite["loss"], weights=finite["num_samples"]))
    with dr.start(backend="serial") as alone, skipping(alone, case, options, state=skipped) as resumed:
        resumed.fit(steps=end.step - skipped.step)
        assert resumed.state() == end


def test_too_many_steps_that_are_skipped_stop_the_run(coordinator: dr.Coordinator) -> None:
    data = np.full_like(X, 3e38), Y
    arguments: dict[str, Any] = {"batch_size": 16, "shards": 4, "on_nan": "skip"}
    words = r"For the 100th time one after another, .* in step 99 \(epoch 19\)\. First in shard 0 the output of layer 0"
    with coordinator.trainer(nn.mlp((8,), 3), data, optim.SGD(), **arguments) as trainer:
        trainer.fit(steps=60)
        with pytest.raises(dr.TrainingDiverged, match=words) as caught:
            trainer.fit(steps=60)
        assert trainer.step == 99
    again = coordinator.trainer(nn.mlp((8,), 3), data, optim.SGD(), state=caught.value.state, **arguments)
    with again, pytest.raises(dr.TrainingDiverged, match=words):
        again.fit(steps=1)

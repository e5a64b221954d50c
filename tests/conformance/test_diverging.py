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
    "backward": (
        spoiled,
        (np.where(np.arange(70)[:, None] == SAMPLE, np.float32(1e4), X), Y),
        {"layer": "1 Spoils"},
        "the gradient of the input of layer 1 Spoils is nan",
    ),
}


@pytest.mark.filterwarnings("ignore:The samples are large")
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

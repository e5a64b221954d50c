"""The samples of a step pass through the model in batches, each cut into the same number of shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn, optim
from dist_relu.engine.batches import microbatches
from dist_relu.engine.plan import StepOptions, StepPlan
from tests.twin import Array


def plan(*, accumulate: int = 1, **options: Any) -> StepPlan:
    return StepPlan(
        loss=nn.CrossEntropy(),
        optimizer=optim.Adam(),
        options=StepOptions(accumulate=accumulate, **options),
        batch_size=10,
        shards=4,
        seed=0,
    )


def test_batches_have_all_samples_of_a_step_in_their_order() -> None:
    samples = np.arange(100, 123)
    batches = list(microbatches(samples, plan(accumulate=3), step=5))
    assert np.concatenate([batch.samples for batch in batches]).tolist() == samples.tolist()
    assert [len(batch.samples) for batch in batches] == [10, 10, 3]
    assert [batch.place for batch in batches] == [0, 1, 2]
    assert [batch.number for batch in batches] == [15, 16, 17]
    assert [batch.step_size for batch in batches] == [23, 23, 23]


@pytest.mark.parametrize("size", [1, 3, 4, 7, 10])
def test_shards_have_all_rows_of_a_batch_once_though_some_may_be_empty(size: int) -> None:
    (batch,) = microbatches(np.arange(size), plan(), step=0)
    assert len(batch.shard_bounds) == 4
    assert [row for first, stop in batch.shard_bounds for row in range(first, stop)] == list(range(size))


def test_of_a_watched_step_the_first_batch_is_watched() -> None:
    watched = [batch.is_watched for batch in microbatches(np.arange(30), plan(accumulate=3), 0, is_watched=True)]
    assert watched == [True, False, False]


def test_a_generation_has_the_parameters_the_states_a_gradient_and_an_average() -> None:
    assert plan().num_vectors == 1 + 2
    assert plan(ema_decay=0.9).num_vectors == 1 + 2 + 1
    assert plan(ema_decay=0.9, stale_gradients=True).num_vectors == 1 + 2 + 1 + 1


def test_rules_that_measure_parameters_keep_them_apart() -> None:
    assert not plan().cuts_by_param
    assert plan(clip_norm=1.0).cuts_by_param
    layerwise = StepPlan(
        loss=nn.CrossEntropy(), optimizer=optim.LAMB(), options=StepOptions(), batch_size=4, shards=2, seed=0
    )
    assert layerwise.cuts_by_param


@dataclass(eq=False)
class Counted(nn.Layer):
    """The identity, which counts the passes through any such layer of this process."""

    passes: ClassVar[int] = 0

    def build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return input_shape

    def params(self) -> Sequence[nn.Param]:
        return []

    def forward(self, x: Array, run: nn.Pass = nn.PLAIN) -> Array:
        Counted.passes += 1
        return x

    def backward(self, dy: Array, run: nn.Pass = nn.PLAIN, *, wants_dx: bool = True) -> Array:
        return dy


def test_a_run_begins_with_as_many_passes_however_many_shards_there_are() -> None:
    x, y = np.ones((16, 3), np.float32), np.zeros(16, np.int64)
    beginnings = set()
    with dr.start(backend="serial") as coordinator:
        for shards in (2, 8):
            model = nn.Sequential(Counted(), nn.Dense(2)).build((3,)).initialize()
            Counted.passes = 0
            coordinator.fit(model, (x, y), optim.SGD(0.1), epochs=1, batch_size=16, shards=shards)
            beginnings.add(Counted.passes - shards)
    assert len(beginnings) == 1

"""Replicas share the shards of every batch, and workers the replicas."""

from __future__ import annotations

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn, optim
from dist_relu.engine.batches import microbatches
from dist_relu.engine.plan import StepOptions, StepPlan
from dist_relu.engine.replicas import check_replicas, mean_of, plan_of_replica, samples_of_replica


def plan(replicas: int = 4, *, batch_size: int = 21, shards: int = 8, accumulate: int = 1) -> StepPlan:
    return StepPlan(
        loss=nn.CrossEntropy(),
        optimizer=optim.Adam(),
        options=StepOptions(accumulate=accumulate),
        batch_size=batch_size,
        shards=shards,
        seed=0,
        averaging=optim.LocalSGD(replicas, 2),
    )


@pytest.mark.parametrize("num_samples", [63, 42, 40, 22, 21, 5, 1])
def test_the_shards_of_a_replica_have_the_samples_that_they_have_in_the_whole_batch(num_samples: int) -> None:
    whole, samples = plan(accumulate=3), np.arange(100, 100 + num_samples)
    expected: dict[tuple[int, int], list[int]] = {}
    for batch in microbatches(samples, whole, step=0):
        for shard, rows in enumerate(batch.shard_bounds):
            expected[batch.place, shard] = batch.samples[slice(*rows)].tolist()
    found: dict[tuple[int, int], list[int]] = {}
    for number in range(4):
        own = plan_of_replica(whole, number)
        for batch in microbatches(samples_of_replica(samples, whole, number), own, step=0):
            for shard, rows in enumerate(batch.shard_bounds):
                found[batch.place, own.first_shard + shard] = batch.samples[slice(*rows)].tolist()
    assert found == {place: rows for place, rows in expected.items() if place in found}
    assert all(place in found or not rows for place, rows in expected.items())


def test_a_run_of_replicas_has_the_vectors_of_all_of_them() -> None:
    names = plan(2).vector_names
    assert names[0] == "parameters"
    assert names[1:4] == ["replica 0 parameters", "replica 0 optimizer state 0", "replica 0 optimizer state 1"]
    assert len(names) == 1 + 2 * 3


def test_replicas_are_added_as_shards_are() -> None:
    vectors = [np.full(1, number, np.float32) for number in (1e8, 1.0, -1e8, 1.0, 3.0)]
    expected = ((vectors[0] + vectors[1]) + (vectors[2] + vectors[3]) + vectors[4]) / np.float32(5)
    assert mean_of(vectors).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("replicas", "workers", "words"),
    [
        (3, 1, r"8 shards can't be shared equally by 3 replicas\. Pass a multiple of 3 as shards"),
        (1, 2, r"1 replica leaves 1 of 2 workers without work.*Pass workers <= 1 or replicas >= 2"),
        (4, 6, r"4 replicas leave 2 of 6 workers without work"),
    ],
)
def test_numbers_that_do_not_fit_together_are_refused(replicas: int, workers: int, words: str) -> None:
    with pytest.raises(dr.PartitionError, match=words):
        check_replicas(plan(replicas), workers)

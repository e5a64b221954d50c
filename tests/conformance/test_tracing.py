"""Where the time of steps goes is told of every worker, and costs no bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn, optim
from tests.conftest import small_model

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "clipped, accumulated": {"clip_norm": 0.5, "accumulate": 2},
    "skipping": {"on_nan": "skip"},
}


def trained(coordinator: dr.Coordinator, few_digits: dr.data.Split, model: nn.Sequential, **options: Any) -> str:
    rule = optim.SGD(0.1, momentum=0.9)
    coordinator.fit(model, few_digits.train, rule, epochs=2, batch_size=100, shards=4, seed=3, **options)
    return model.sha256()


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_traced_run_ends_with_the_same_bits(
    coordinator: dr.Coordinator, few_digits: dr.data.Split, options: dict[str, Any]
) -> None:
    traced = trained(coordinator, few_digits, small_model(), trace=dr.Trace(), **options)
    assert traced == trained(coordinator, few_digits, small_model(), **options)


def test_sums_over_the_whole_batch_are_traced(coordinator: dr.Coordinator, few_digits: dr.data.Split) -> None:
    def model() -> nn.Sequential:
        return nn.Sequential(nn.Dense(16), nn.BatchNorm(scope="batch"), nn.ReLU(), nn.Dense(10))

    assert trained(coordinator, few_digits, model(), trace=dr.Trace()) == trained(coordinator, few_digits, model())


def test_every_step_of_every_worker_is_cut_into_phases(coordinator: dr.Coordinator, few_digits: dr.data.Split) -> None:
    trace = dr.Trace()
    model = small_model()
    fitted = coordinator.fit(model, few_digits.train, optim.SGD(0.1), epochs=3, batch_size=100, shards=4, trace=trace)
    table = trace.table()
    assert table["step"].tolist() == np.repeat(np.arange(len(fitted.losses)), coordinator.workers).tolist()
    assert table["worker"].tolist() == [*range(coordinator.workers)] * len(fitted.losses)
    assert (table["backward"] + table["pass"] > 0).all()
    assert (table["wait"] > 0).any() == (max(map(len, nodes_of(trace))) > 1)
    assert (table["exchange"] > 0).any() == (coordinator.nodes > 1)


def test_phases_add_up_to_the_time_of_the_steps(coordinator: dr.Coordinator, few_digits: dr.data.Split) -> None:
    trace = dr.Trace()
    fitted = coordinator.fit(
        small_model(), few_digits.train, optim.SGD(0.1), epochs=3, batch_size=100, shards=4, trace=trace
    )
    phases = trace.phases()
    assert [worker.rank for worker in phases.workers] == [*range(coordinator.workers)]
    assert phases.first + phases.num_steps == len(fitted.losses)
    for worker in phases.workers:
        assert sum(worker.waits_for) + worker.network < worker.seconds <= phases.seconds
    assert 0 < sum(phases.critical.values()) <= phases.seconds


def nodes_of(trace: dr.Trace) -> list[list[int]]:
    workers = trace.phases().workers
    return [[one.rank for one in workers if one.node == node] for node in {one.node for one in workers}]

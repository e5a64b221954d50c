"""A simulated exchange takes what the formula says where nobody is late, and longer where somebody is."""

from __future__ import annotations

import pytest

from dist_relu.scaling import Network, Part, Work, simulate, step_of
from dist_relu.scaling.cost import OURS, Scheme
from dist_relu.scaling.simulation import Failures

NETWORK = Network(name="1 GB/s", latency_s=1e-5, bytes_per_s=1e9, message_s=0.0)
WORK = Work(
    parts=[Part(ready_s=1e-3 * (1 + number), size_bytes=256 * 1024) for number in range(32)],
    shards_s=32e-3,
    update_s=1e-3,
)


@pytest.mark.parametrize("scheme", OURS)
@pytest.mark.parametrize("nodes", [2, 3, 4, 6, 16])
def test_where_nobody_is_late_it_takes_what_the_formula_says(nodes: int, scheme: Scheme) -> None:
    simulated = simulate(WORK, NETWORK, nodes, scheme, steps=2)
    assert simulated.mean_s == pytest.approx(step_of(WORK, NETWORK, nodes, scheme).seconds, rel=0.15)


@pytest.mark.parametrize("scheme", OURS)
def test_all_wait_for_the_slowest(scheme: Scheme) -> None:
    calm = simulate(WORK, NETWORK, 64, scheme, steps=5)
    noisy = simulate(WORK, NETWORK, 64, scheme, noise=[1.0] * 9 + [1.5], steps=5)
    assert noisy.mean_s > 1.2 * calm.mean_s


def test_one_node_exchanges_nothing() -> None:
    assert simulate(WORK, NETWORK, 1, "owner", steps=3).step_seconds == pytest.approx([33e-3] * 3)


def test_failures_cost_their_recovery() -> None:
    failures = Failures(mean_hours=1 / 3600, recovery_s=10.0)
    simulated = simulate(WORK, NETWORK, 16, "halving", failures=failures, steps=50)
    assert simulated.num_failures > 0
    lost_s = simulated.total_s - sum(simulated.step_seconds)
    assert lost_s == pytest.approx(10.0 * simulated.num_failures, rel=0.01)


def test_thousands_of_nodes_are_simulated() -> None:
    simulated = simulate(WORK, NETWORK, 4096, "halving", noise=[1.0, 1.1], steps=2)
    assert simulated.mean_s > step_of(WORK, NETWORK, 4096, "halving").seconds

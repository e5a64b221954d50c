"""A simulated exchange takes what the formula says where nobody is late, and longer where somebody is."""

from __future__ import annotations

import pytest

from dist_relu.scaling import Network, Part, Work, simulate, step_of
from dist_relu.scaling.cost import Scheme, traffic_of_scheme, traffic_of_training
from dist_relu.scaling.simulation import Failures

NETWORK = Network(name="1 GB/s", latency_s=1e-5, bytes_per_s=1e9, message_s=0.0)
WORK = Work(
    parts=[Part(ready_s=1e-3 * (1 + number), size_bytes=256 * 1024) for number in range(32)],
    shards_s=32e-3,
    update_s=1e-3,
)


SCHEMES: tuple[Scheme, ...] = ("owners", "halving", "doubling")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("nodes", [2, 3, 4, 6, 16])
def test_where_nobody_is_late_it_takes_what_the_formula_says(nodes: int, scheme: Scheme) -> None:
    traffic = traffic_of_scheme(scheme, WORK, nodes)
    simulated = simulate(WORK, NETWORK, nodes, traffic, steps=2)
    assert simulated.mean_s == pytest.approx(step_of(WORK, NETWORK, nodes, traffic).seconds, rel=0.15)


def test_partial_sums_that_are_several_take_as_many_times_longer() -> None:
    slow = Network(name="slow", latency_s=0.0, bytes_per_s=1e8, message_s=0.0)
    fit, unfit = (traffic_of_training(round(WORK.size_bytes), 3, shards) for shards in (12, 16))
    simulated = simulate(WORK, slow, 3, unfit, steps=2).mean_s
    assert simulated == pytest.approx(step_of(WORK, slow, 3, unfit).seconds, rel=0.15)
    assert simulated > 1.5 * simulate(WORK, slow, 3, fit, steps=2).mean_s


@pytest.mark.parametrize("scheme", SCHEMES)
def test_all_wait_for_the_slowest(scheme: Scheme) -> None:
    traffic = traffic_of_scheme(scheme, WORK, 64)
    calm = simulate(WORK, NETWORK, 64, traffic, steps=5)
    noisy = simulate(WORK, NETWORK, 64, traffic, noise=[1.0] * 9 + [1.5], steps=5)
    assert noisy.mean_s > 1.2 * calm.mean_s


def test_one_node_exchanges_nothing() -> None:
    assert simulate(WORK, NETWORK, 1, traffic_of_scheme("owners", WORK, 1), steps=3).step_seconds == pytest.approx(
        [33e-3] * 3
    )


def test_failures_cost_their_recovery() -> None:
    failures = Failures(mean_hours=1 / 3600, recovery_s=10.0)
    simulated = simulate(WORK, NETWORK, 16, traffic_of_scheme("halving", WORK, 16), failures=failures, steps=50)
    assert simulated.num_failures > 0
    lost_s = simulated.total_s - sum(simulated.step_seconds)
    assert lost_s == pytest.approx(10.0 * simulated.num_failures, rel=0.01)


def test_thousands_of_nodes_are_simulated() -> None:
    traffic = traffic_of_scheme("halving", WORK, 4096)
    simulated = simulate(WORK, NETWORK, 4096, traffic, noise=[1.0, 1.1], steps=2)
    assert simulated.mean_s > step_of(WORK, NETWORK, 4096, traffic).seconds

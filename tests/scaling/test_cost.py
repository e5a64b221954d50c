"""A step takes what its slowest node computes, and what of the exchange is not hidden."""

from __future__ import annotations

import numpy as np
import pytest

from dist_relu.scaling import Network, Part, Work, step_of
from dist_relu.scaling.cost import best_step, slowest_of
from dist_relu.scaling.network import fit

FAST = Network(name="fast", latency_s=0.0, bytes_per_s=1e9, message_s=0.0)


def work(*ready_s: float, size_bytes: float = 1e6) -> Work:
    """A gradient in parts of a megabyte, and a backward pass that ends with the last of them."""
    return Work(parts=[Part(ready_s=at, size_bytes=size_bytes) for at in ready_s], shards_s=ready_s[-1], update_s=0.5)


def test_one_node_exchanges_nothing() -> None:
    step = step_of(work(1.0), FAST, 1, "owner")
    assert (step.seconds, step.exposed_s, step.hidden_share) == (1.5, 0.0, 1.0)


@pytest.mark.parametrize(("nodes", "least"), [(2, 1.0), (4, 1.5), (64, 2 * 63 / 64)])
def test_an_exchange_behind_everything_takes_what_the_wire_must_carry(nodes: int, least: float) -> None:
    step = step_of(work(1.0), FAST, nodes, "owner")
    assert step.exposed_s == pytest.approx(least * 1e-3)
    assert step.seconds == pytest.approx(1.5 + least * 1e-3)


def test_what_leaves_early_is_hidden() -> None:
    step = step_of(work(0.5, 1.0), FAST, 2, "owner")
    assert step.exposed_s == pytest.approx(1e-3)
    assert step.hidden_share == pytest.approx(0.5)


def test_parts_wait_for_the_link() -> None:
    step = step_of(work(0.5, 1.0, size_bytes=1e9), FAST, 2, "owner")
    assert step.exposed_s == pytest.approx(0.5 + 1.0 + 1.0 - 1.0)


def test_halving_and_doubling_is_chosen_where_messages_are_many() -> None:
    slow_to_begin = Network(name="slow", latency_s=1e-6, bytes_per_s=1e9, message_s=1e-4)
    assert best_step(work(1.0), slow_to_begin, 1024).scheme == "halving"
    assert best_step(work(1.0), FAST, 3).scheme == "owner"


def test_nodes_that_share_cores_are_slower_by_as_much() -> None:
    assert step_of(work(1.0), FAST, 4, "owner", crowding=2).shards_s == 2.0


def test_the_slowest_of_many_is_slower_than_that_of_few(rng: np.random.Generator) -> None:
    assert slowest_of(1, 0.1) == 1
    drawn = rng.normal(1, 0.1, (4000, 64)).max(axis=1).mean()
    assert slowest_of(64, 0.1) == pytest.approx(drawn, abs=0.01)


def test_latency_and_bandwidth_are_found_again(rng: np.random.Generator) -> None:
    sizes = np.repeat([4e3, 4e6], 30)
    seconds = (50e-6 + sizes * 8e-9) * rng.lognormal(0, 0.05, 60)
    seconds[0] *= 100  # something held it up
    found = fit(sizes.tolist(), seconds.tolist())
    assert found.latency_s.low < 50e-6 < found.latency_s.high
    assert found.s_per_byte.low < 8e-9 < found.s_per_byte.high
    assert found.network("x").bytes_per_s == pytest.approx(1.25e8, rel=0.05)


def test_one_size_of_messages_tells_no_bandwidth() -> None:
    with pytest.raises(ValueError, match="messages of two sizes"):
        fit([4e3, 4e3], [1e-4, 1e-4])


def test_networks_are_known_by_their_rate() -> None:
    assert Network.of_ethernet("10G").bytes_per_s == pytest.approx(1.177e9, rel=1e-3)
    with pytest.raises(ValueError, match="'fast' is no network: expected a rate in Gbit/s, such as 1G"):
        Network.of_ethernet("fast")

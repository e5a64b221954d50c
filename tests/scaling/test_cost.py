"""A step takes what its slowest node computes, and what of the exchange is not hidden."""

from __future__ import annotations

import numpy as np
import pytest

from dist_relu.scaling import Network, Part, Step, Work, step_of
from dist_relu.scaling.cost import slowest_of, traffic_of_scheme, traffic_of_training
from dist_relu.scaling.network import fit

FAST = Network(name="fast", latency_s=0.0, bytes_per_s=1e9, message_s=0.0)


def work(*ready_s: float, size_bytes: float = 1e6) -> Work:
    """A gradient in parts of a megabyte, and a backward pass that ends with the last of them."""
    return Work(parts=[Part(ready_s=at, size_bytes=size_bytes) for at in ready_s], shards_s=ready_s[-1], update_s=0.5)


def by_owners(work: Work, nodes: int, crowding: float = 1.0) -> Step:
    return step_of(work, FAST, nodes, traffic_of_scheme("owners", work, nodes), crowding=crowding)


def test_one_node_exchanges_nothing() -> None:
    step = by_owners(work(1.0), 1)
    assert (step.seconds, step.exposed_s, step.hidden_share) == (1.5, 0.0, 1.0)


@pytest.mark.parametrize(("nodes", "least"), [(2, 1.0), (4, 1.5), (64, 2 * 63 / 64)])
def test_an_exchange_behind_everything_takes_what_the_wire_must_carry(nodes: int, least: float) -> None:
    step = by_owners(work(1.0), nodes)
    assert step.exposed_s == pytest.approx(least * 1e-3)
    assert step.seconds == pytest.approx(1.5 + least * 1e-3)


def test_what_leaves_early_is_hidden() -> None:
    step = by_owners(work(0.5, 1.0), 2)
    assert step.exposed_s == pytest.approx(1e-3)
    assert step.hidden_share == pytest.approx(0.5)


def test_parts_wait_for_the_link() -> None:
    step = by_owners(work(0.5, 1.0, size_bytes=1e9), 2)
    assert step.exposed_s == pytest.approx(0.5 + 1.0 + 1.0 - 1.0)


def test_what_moves_messages_is_not_there_to_compute() -> None:
    busy = Network(name="busy", latency_s=0.0, bytes_per_s=1e9, message_s=0.0, cpu_s_per_byte=0.5e-9)
    parts = work(0.25, 0.5, 0.75, 1.0, size_bytes=0.1e9)
    traffic = traffic_of_scheme("owners", parts, 2)
    free, taken = (step_of(parts, network, 2, traffic) for network in (FAST, busy))
    assert free.exposed_s == pytest.approx(0.1)
    assert taken.exposed_s == pytest.approx(0.1 + 3 * 0.05)


@pytest.mark.parametrize("nodes", [2, 4, 64])
@pytest.mark.parametrize("size_bytes", [4_000, 40_000_000])
def test_training_sends_what_books_say_where_shards_fit_the_nodes(nodes: int, size_bytes: int) -> None:
    ours = traffic_of_training(size_bytes, nodes, 4 * nodes)
    of_books = traffic_of_scheme(ours.scheme, work(1.0, size_bytes=size_bytes), nodes)
    assert ours.rounds == of_books.rounds
    assert ours.share == pytest.approx(of_books.share)
    assert ours.scheme == "doubling" or size_bytes > 4_000


def test_a_node_whose_shards_are_no_subtree_sends_more() -> None:
    fit, unfit = (traffic_of_training(40_000_000, 3, shards).share for shards in (12, 16))
    assert fit == pytest.approx(2 * 2 / 3)
    assert unfit > 1.5 * fit


def test_nodes_that_share_cores_are_slower_by_as_much() -> None:
    assert by_owners(work(1.0), 4, crowding=2).shards_s == 2.0


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


def test_networks_are_known_by_their_name() -> None:
    hdr = Network.named(" HDR")
    assert (hdr.name, hdr.latency_s, hdr.bytes_per_s) == ("hdr", 1.2e-6, 23.75e9)
    assert Network.named("efa", latency_s=0.0).latency_s == 0
    assert Network.named("10G") == Network.of_ethernet("10G")
    with pytest.raises(ValueError, match=r"'fdr' is no network: .* Or one of edr, hdr, ndr, aries, slingshot-10, efa"):
        Network.named("fdr")


def test_networks_are_known_by_their_rate() -> None:
    assert Network.of_ethernet("10G").bytes_per_s == pytest.approx(1.177e9, rel=1e-3)
    with pytest.raises(ValueError, match="'fast' is no network: expected a rate in Gbit/s, such as 1G"):
        Network.of_ethernet("fast")

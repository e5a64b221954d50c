"""All ways over nodes end with the bits of one summation tree, whatever the number of nodes and whoever is first."""

from __future__ import annotations

import os
import random
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dist_relu.comm.barrier import NodeBarrier, control_shape
from dist_relu.comm.blocks import Section
from dist_relu.comm.buckets import Bucket, choose_cutting
from dist_relu.comm.channel import Callback, Channel, ProgressEngine
from dist_relu.comm.exchange import Exchange, OrderedSum
from dist_relu.comm.halves import Halves
from dist_relu.comm.shared_memory import SharedArray
from dist_relu.core.arrays import Array
from dist_relu.partition import Doubling, Halving, Owner, SummationTree, TreeNode, Way, bounds
from tests.cases import long

MOST_NODES = 17
WAYS = {"owner": Owner(0), "halving": Halving(), "doubling": Doubling()}
with_every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


class Wire:
    """What is under way between nodes of this process; it arrives in an order of its own."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.sent: dict[tuple[int, int, int], deque[tuple[Array, Callback]]] = {}
        self.wanted: dict[tuple[int, int, int], deque[tuple[Array, Callback]]] = {}
        self.num_bytes = 0
        self.num_messages = 0

    def move(self) -> bool:
        """Let a message arrive; returns whether there was one."""
        ready = [key for key, messages in self.sent.items() if messages and self.wanted.get(key)]
        if not ready:
            return False
        key = self.random.choice(ready)
        (array, on_sent), (target, on_received) = self.sent[key].popleft(), self.wanted[key].popleft()
        assert array.shape == target.shape
        target[:] = array
        self.num_bytes += array.nbytes
        self.num_messages += 1
        for on_done in self.random.sample([on_sent, on_received], 2):
            on_done()
        return True


class WireChannel(Channel):
    """A node's end of a wire, which moves only when that is told to."""

    def __init__(self, rank: int) -> None:
        self.wire = Wire(0)
        self._rank = rank

    def begin(self, task: int) -> None:
        pass

    def send(self, array: Array, rank: int, tag: int, on_done: Callback) -> None:
        self.wire.sent.setdefault((self._rank, rank, tag), deque()).append((array, on_done))

    def receive(self, array: Array, rank: int, tag: int, on_done: Callback) -> None:
        self.wire.wanted.setdefault((rank, self._rank, tag), deque()).append((array, on_done))

    @property
    def is_busy(self) -> bool:
        return False

    def progress(self) -> bool:
        return False


class Network:
    """Nodes of this process, with one wire after the other."""

    def __init__(self) -> None:
        control = SharedArray(control_shape(1), np.int64)
        self._channels = [WireChannel(node) for node in range(MOST_NODES)]
        self.engines = [
            ProgressEngine(channel, NodeBarrier(control.array, 0, [os.getpid()])) for channel in self._channels
        ]

    def wire(self, seed: int) -> Wire:
        wire = Wire(seed)
        for channel in self._channels:
            channel.wire = wire
        return wire


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    network = Network()
    yield network
    for engine in network.engines:
        engine.close()


def held_by(tree: SummationTree, shares: Sequence[tuple[int, int]]) -> list[list[TreeNode]]:
    return [tree.fold(tree.leaves(first, stop))[1] for first, stop in shares]


def exchanged(
    network: Network,
    buckets: Sequence[Bucket],
    tree: SummationTree,
    held: Sequence[Sequence[TreeNode]],
    gradients: Array,
    seed: int,
    sections: Sequence[Section] = (),
) -> tuple[Array, Wire]:
    """Let nodes add gradients (sums, shards, P), sum after sum.  Returns (sums, nodes, P), what each has."""
    wire = network.wire(seed)
    engines = network.engines[: len(held)]
    num_sums, _, size = gradients.shape
    totals = np.zeros((len(held), size), gradients.dtype)
    adding = partial(OrderedSum, dtype=gradients.dtype)
    exchanges = [
        Exchange(engine, node, buckets, tree, held, adding, totals[node], sections)
        for node, engine in enumerate(engines)
    ]
    found = np.empty((num_sums, *totals.shape), gradients.dtype)
    for number in range(num_sums):
        order = wire.random.sample(range(len(held)), len(held))
        for node in order:
            exchanges[node].begin()
        for node in order:
            for bucket in buckets:
                for row, of_tree in zip(exchanges[node].rows(bucket), held[node], strict=True):
                    row[:] = added(tree, of_tree, gradients[number])[bucket.start : bucket.stop]
                exchanges[node].leave(bucket)
                wire.move()
        while wire.move():
            pass
        for exchange in exchanges:
            exchange.wait()
        found[number] = totals
    return found, wire


def added(tree: SummationTree, of_tree: TreeNode, gradients: Array) -> Array:
    """Add gradients (shards, P) of a node of the tree, pair by pair."""
    shards = tree.shards_of(of_tree)
    rows: list[Array] = [gradients[shard] for shard in shards]
    while len(rows) > 1:
        pairs = [rows[i] + rows[i + 1] for i in range(0, len(rows) - 1, 2)]
        rows = pairs + rows[2 * len(pairs) :]
    (total,) = rows
    return total


def gradients_of(num_sums: int, shards: int, size: int, seed: int) -> Array:
    random_numbers = np.random.default_rng(seed)
    scales = 10.0 ** random_numbers.integers(-4, 5, (num_sums, shards, 1))
    return (random_numbers.standard_normal((num_sums, shards, size)) * scales).astype(np.float32)


@with_every_way
@pytest.mark.parametrize("nodes", [2, 3, 5, 8, *long(4, 6, 7, *range(9, MOST_NODES + 1))])
@settings(max_examples=20)
@given(extra=st.integers(0, 40), size=st.integers(1, 70), seed=st.integers(0, 2**32))
def test_any_number_of_nodes_ends_with_the_bits_of_the_summation_tree(
    network: Network, nodes: int, way: Way, extra: int, size: int, seed: int
) -> None:
    tree = SummationTree(nodes + extra)
    gradients = gradients_of(2, nodes + extra, size, seed)
    expected = [added(tree, TreeNode(10, 0), terms) for terms in gradients]
    cuts = bounds(size, 2)
    buckets = [Bucket(number, start, stop, way, range(nodes)) for number, (start, stop) in enumerate(cuts)]
    found, _ = exchanged(network, buckets, tree, held_by(tree, bounds(nodes + extra, nodes)), gradients, seed)
    for sums, whole in zip(found, expected, strict=True):
        assert (sums.view(np.uint32) == whole.view(np.uint32)).all()


@with_every_way
@given(nodes=st.integers(2, 9), size=st.integers(1, 40), seed=st.integers(0, 2**32))
def test_nodes_may_have_shards_from_anywhere(network: Network, nodes: int, way: Way, size: int, seed: int) -> None:
    shards = nodes + seed % 20
    tree, gradients = SummationTree(shards), gradients_of(1, shards, size, seed)
    order = random.Random(seed).sample(range(shards), shards)
    held = [tree.fold([TreeNode(0, shard) for shard in sorted(order[node::nodes])])[1] for node in range(nodes)]
    found, _ = exchanged(network, [Bucket(0, 0, size, way, range(nodes))], tree, held, gradients, seed)
    assert (found[0].view(np.uint32) == added(tree, TreeNode(10, 0), gradients[0]).view(np.uint32)).all()


@with_every_way
@given(nodes=st.integers(2, 9), size=st.integers(3, 40), seed=st.integers(0, 2**32))
@settings(max_examples=20)
def test_sums_of_16_bits_take_half_the_bytes_and_lie_beside_others(
    network: Network, way: Way, nodes: int, size: int, seed: int
) -> None:
    tree = SummationTree(nodes)
    gradients = gradients_of(2, nodes, size, seed).astype(np.float16).astype(np.float32)
    first, stop = sorted(random.Random(seed).sample(range(size + 1), 2))
    sections = [Section(0, first), Section(first, stop, Halves("float16", size)), Section(stop, size)]
    held, buckets = held_by(tree, bounds(nodes, nodes)), [Bucket(0, 0, size, way, range(nodes))]
    exact, wire = exchanged(network, buckets, tree, held, gradients, seed)
    found, narrow_wire = exchanged(network, buckets, tree, held, gradients, seed, sections)
    with np.errstate(over="ignore"):
        halves = [added(tree, TreeNode(10, 0), terms.astype(np.float16)) for terms in gradients]
    is_rounded = (np.arange(size) >= first) & (np.arange(size) < stop)
    expected = np.where(is_rounded, np.stack(halves)[:, np.newaxis].astype(np.float32), exact)
    assert (found.view(np.uint32) == expected.view(np.uint32)).all()
    assert narrow_wire.num_messages == wire.num_messages
    assert narrow_wire.num_bytes * size * 2 == wire.num_bytes * (2 * size - (stop - first)) or way == Halving()


@pytest.mark.parametrize("nodes", [2, 4, 8, 16])
def test_halving_sends_the_fewest_bytes_and_doubling_the_fewest_messages(network: Network, nodes: int) -> None:
    size, rounds = 160, nodes.bit_length() - 1
    tree, gradients = SummationTree(2 * nodes), gradients_of(1, 2 * nodes, size, 0)

    def traffic(way: Way) -> tuple[int, int]:
        held = held_by(tree, bounds(2 * nodes, nodes))
        _, wire = exchanged(network, [Bucket(0, 0, size, way, range(nodes))], tree, held, gradients, 0)
        return wire.num_bytes, wire.num_messages

    assert traffic(Halving()) == (2 * (nodes - 1) * size * 4, 2 * nodes * rounds)
    assert traffic(Doubling()) == (nodes * rounds * size * 4, nodes * rounds)


@pytest.mark.parametrize("nodes", range(2, 40))
def test_halving_sends_no_more_than_twice_the_bucket_from_any_node(nodes: int) -> None:
    tree = SummationTree(nodes)
    for rounds in Halving().rounds(tree, held_by(tree, bounds(nodes, nodes))):
        given_parts = sum(len(one.mine) / part.parts for one in rounds for _, part in one.gives)
        returned = sum(len(one.takes) / one.keeps.parts for one in rounds if one.keeps)
        assert given_parts + returned <= 2
        assert sum(len(one.gives) for one in rounds) <= nodes - 1


@pytest.mark.parametrize("nodes", range(2, 40))
@pytest.mark.parametrize("shards", [40, 64, 1000])
def test_doubling_takes_as_many_rounds_as_the_number_of_nodes_has_bits(nodes: int, shards: int) -> None:
    tree = SummationTree(shards)
    rounds = Doubling().rounds(tree, held_by(tree, bounds(shards, nodes)))
    assert max(map(len, rounds)) == (nodes - 1).bit_length()
    assert max(len(one.gives) for of_node in rounds for one in of_node) <= 2


@pytest.mark.parametrize("nodes", [2, 3, 8, 16, 17])
def test_small_sums_are_doubled_and_large_ones_are_not_but_on_two_nodes(nodes: int) -> None:
    tree = SummationTree(nodes)
    held = held_by(tree, bounds(nodes, nodes))
    small, large = (choose_cutting(size_bytes, tree, held) for size_bytes in (4_000, 40_000_000))
    assert small.ways == [Doubling()]
    assert (large.ways == [Doubling()]) == (nodes == 2)
    assert small.seconds < large.seconds

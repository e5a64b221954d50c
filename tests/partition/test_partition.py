"""Shards, their summation tree, and random streams."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dist_relu.kernels.ordered_sum import BLOCK, ordered_sum
from dist_relu.partition import (
    Fold,
    Purpose,
    SummationTree,
    TreeNode,
    balance,
    bounds,
    epoch_order,
    generator,
    stack_depth,
)


def added(terms: list[str], carries: list[int]) -> list[str]:
    """What is added to what."""
    fold = Fold(carries, lambda left, right: f"({left}+{right})")
    for term in terms:
        fold.push(term)
        fold.carry()
    return fold.sums()


@given(st.integers(0, 200), st.integers(1, 20))
def test_parts_cover_everything_once_and_differ_by_one_at_most(total: int, parts: int) -> None:
    cut = bounds(total, parts)
    assert [i for start, stop in cut for i in range(start, stop)] == list(range(total))
    sizes = [stop - start for start, stop in cut]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)


def test_shards_are_added_in_pairs_and_pairs_of_pairs() -> None:
    carries, left = SummationTree(8).fold(SummationTree(8).leaves(0, 8))
    assert added(list("abcdefgh"), carries) == ["(((a+b)+(c+d))+((e+f)+(g+h)))"]
    assert left == [TreeNode(3, 0)]


@given(st.integers(1, 40), st.integers(1, 40))
def test_the_order_of_additions_does_not_depend_on_the_workers(shards: int, workers: int) -> None:
    workers = min(workers, shards)
    tree = SummationTree(shards)
    names = [str(shard) for shard in range(shards)]
    (expected,) = added(names, tree.fold(tree.leaves(0, shards))[0])
    sums: list[str] = []
    nodes: list[TreeNode] = []
    for first, stop in bounds(shards, workers):
        carries, left = tree.fold(tree.leaves(first, stop))
        partial = added(names[first:stop], carries)
        assert len(partial) == len(left)
        assert stack_depth(carries) <= 2 * (stop - first).bit_length() + 1
        sums += partial
        nodes += left
    assert added(sums, tree.fold(nodes)[0]) == [expected]


@given(st.integers(1, 40), st.integers(0, 9))
def test_the_compiled_walk_along_the_tree_ends_with_the_bits_of_the_other(shards: int, seed: int) -> None:
    rows = np.random.default_rng(seed).standard_normal((shards, BLOCK + 3), np.float32)
    carries, _ = SummationTree(shards).fold(SummationTree(shards).leaves(0, shards))
    fold = Fold(carries, np.add)
    for row in rows:
        fold.push(row)
        fold.carry()
    total, stack = np.empty(BLOCK + 3, np.float32), np.empty((stack_depth(carries), BLOCK), np.float32)
    ordered_sum(rows, 0, np.array(carries), stack, total)
    np.testing.assert_array_equal(total, fold.sums()[0])


@given(st.lists(st.floats(0.1, 10), max_size=50), st.integers(1, 8))
def test_balancing_gives_every_item_to_one_worker(costs: list[float], workers: int) -> None:
    shares = balance(costs, workers)
    assert len(shares) == workers
    assert [item for share in shares for item in share] == list(range(len(costs)))
    if costs:
        assert max(sum(costs[i] for i in share) for share in shares) <= sum(costs) / workers + max(costs) + 1e-9


def test_streams_of_random_numbers_do_not_meet() -> None:
    draws = [
        tuple(generator(seed, purpose, a, b).integers(0, 2**62, 3))
        for seed in (0, 1, 2**64 - 1)
        for purpose in Purpose
        for a in (0, 1)
        for b in (0, 1)
    ]
    assert len(set(draws)) == len(draws)
    assert tuple(generator(1, Purpose.EPOCH_ORDER, 1, 0).integers(0, 2**62, 3)) in draws


@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_visits_every_sample_once(shuffle: bool) -> None:
    first, second = (epoch_order(1000, 0, epoch, shuffle=shuffle) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(1000))
    assert np.array_equal(first, second) != shuffle

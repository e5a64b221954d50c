"""Groups add over nodes in the order of the summation tree, wherever its leaves are."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np
import pytest

from dist_relu.comm.barrier import control_shape
from dist_relu.comm.group import Group, combine
from dist_relu.comm.shared_memory import SharedArray
from dist_relu.comm.tcp import TcpChannel
from dist_relu.core.arrays import Array
from dist_relu.partition import SummationTree


@pytest.mark.parametrize("leaves", [[0, 1, 2, 3], [2, 0, 3, 1], [4, 1, 0, 2, 3]], ids=str)
def test_sums_of_any_size_have_the_bits_of_the_summation_tree(leaves: list[int]) -> None:
    size = len(leaves)
    nodes = [range(rank, rank + 1) for rank in range(size)]
    connections: list[dict[int, socket.socket]] = [{} for _ in range(size)]
    for left, right in combinations(range(size), 2):
        connections[left][right], connections[right][left] = socket.socketpair()
        connections[left][right].setblocking(False)
        connections[right][left].setblocking(False)
    controls = [SharedArray(control_shape(1), np.int64) for _ in range(size)]
    tree = SummationTree(size)
    carries, _ = tree.fold(tree.leaves(0, size))

    def work(rank: int, arrays: list[list[Array]]) -> None:
        group = Group(rank, nodes, leaves, [os.getpid()], controls[rank].array, TcpChannel(connections[rank]))
        for of_size in arrays:
            group.all_reduce(of_size[leaves[rank]], np.add)
        group.barrier()
        group.close()

    random_numbers = np.random.default_rng(0)
    sums = [[random_numbers.standard_normal(n, np.float32) for _ in range(size)] for n in (3, 200_000, 500, 200_000)]
    expected = [np.empty_like(arrays[0]) for arrays in sums]
    for arrays, total in zip(sums, expected, strict=True):
        combine(np.add, carries, [array.copy() for array in arrays], total)
    with ThreadPoolExecutor(size) as pool:
        for done in [pool.submit(work, rank, sums) for rank in range(size)]:
            done.result(timeout=60)
    for arrays, total in zip(sums, expected, strict=True):
        for array in arrays:
            np.testing.assert_array_equal(array, total)

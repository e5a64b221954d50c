"""Which processes make a node, and what travels to nodes of arrays that each has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from dist_relu.comm.shared_memory import SharedArray, attach
from dist_relu.runtime.process_info import ProcessInfo, by_node, nodes_of
from dist_relu.runtime.replicated import ReplicatedArrays
from dist_relu.runtime.world import World


def test_workers_of_a_node_stand_together_and_the_first_ones_node_comes_first() -> None:
    peers = [ProcessInfo(pid, "host", node) for pid, node in enumerate("baabc")]
    order = by_node(peers)
    assert order == [0, 3, 1, 2, 4]
    assert nodes_of([peers[i] for i in order]) == [range(2), range(2, 4), range(4, 5)]


def test_processes_of_one_machine_are_one_node_unless_they_are_told_apart() -> None:
    assert ProcessInfo.here().node == ProcessInfo.here().node != ProcessInfo.here("another").node


class Nodes:
    """Nodes of one worker each, in this process; notes what is asked of them."""

    def __init__(self, number: int) -> None:
        self.asked: list[tuple[Sequence[int], Any]] = []
        self.worlds = [cast(World, SimpleNamespace(node=SimpleNamespace(number=i, held={}))) for i in range(number)]

    def ask(self, ranks: Sequence[int], function: Callable[[World, Any], Any], request: Any) -> list[Any]:
        self.asked.append((ranks, request))
        return [function(self.worlds[rank], request) for rank in ranks]

    def held(self, node: int) -> list[SharedArray]:
        return list(self.worlds[node].node.held.values())


def test_rows_travel_once_and_only_to_those_who_want_them() -> None:
    nodes = Nodes(3)
    replicas = ReplicatedArrays([range(1), range(1, 2), range(2, 3)], 0, nodes.ask, "ray")
    x = np.arange(12.0).reshape(6, 2)
    copy = replicas.copy_of(x)
    nodes.asked.clear()
    copy.broadcast({0: range(2), 1: range(2, 4), 2: range(4, 6)})
    assert [(ranks, request.rows) for ranks, request in nodes.asked] == [([1], range(2, 4)), ([2], range(4, 6))]
    nodes.asked.clear()
    copy.broadcast()
    assert [(ranks, request.rows) for ranks, request in nodes.asked] == [
        ([1], range(2)),
        ([1], range(4, 6)),
        ([2], range(4)),
    ]
    copy.broadcast()
    assert len(nodes.asked) == 3
    assert all((nodes.held(node)[0].array == x).all() for node in (1, 2))
    nodes.held(2)[0].array[5] = -1
    assert (copy.gather({0: range(2), 1: range(2, 4), 2: range(4, 6)})[5] == -1).all()


def test_of_what_is_put_anew_nothing_else_travels() -> None:
    nodes = Nodes(3)
    replicas = ReplicatedArrays([range(1), range(1, 2), range(2, 3)], 0, nodes.ask, "ray")
    generations = replicas.zeros((2, 3, 4), np.float32)
    generations.broadcast()
    nodes.held(1)[0].array[1, 2] = 5  # workers of the node have written their own
    nodes.asked.clear()
    generations.put((1, 0), np.arange(4, dtype=np.float32))
    assert [(ranks, request.values.tolist()) for ranks, request in nodes.asked] == [([1, 2], [0, 1, 2, 3])]
    for array in (generations.array, nodes.held(1)[0].array, nodes.held(2)[0].array):
        assert array[1, 0].tolist() == [0, 1, 2, 3]
    assert (nodes.held(1)[0].array[1, 2] == 5).all()


def test_an_array_is_not_copied_for_a_worker_in_this_process() -> None:
    x, nodes = np.ones((3, 2), np.float32), Nodes(1)
    here = ReplicatedArrays([range(1)], 0, nodes.ask, "serial")
    lent = here.of(x, x.dtype)
    assert attach(lent.handles[0]) is lent.array is x
    frozen = x.copy()
    frozen.setflags(write=False)
    for array, dtype in [(x, np.float64), (x.T, np.float32), (frozen, np.float32)]:
        copy = here.of(array, np.dtype(dtype)).array
        assert (copy == array).all()
        assert not np.shares_memory(copy, array)
    assert not np.shares_memory(ReplicatedArrays([range(2)], 0, nodes.ask, "local").of(x, x.dtype).array, x)


def test_the_other_nodes_keep_nothing_of_a_call_that_is_over() -> None:
    nodes = Nodes(2)
    replicas = ReplicatedArrays([range(1), range(1, 2)], 0, nodes.ask, "ray")
    kept = replicas.zeros((3,), np.float32)
    with replicas.for_a_call() as call:
        made = call.zeros((5,), np.float32)
        assert len(nodes.held(1)) == 2
    assert made.array.shape == (5,)
    assert [shared.array.shape for shared in nodes.held(1)] == [kept.array.shape]
    del kept
    replicas.zeros((1,), np.float32)
    assert [shared.array.shape for shared in nodes.held(1)] == [(1,)]

"""What several nodes are made of: who stands where, what travels, and how a lost one is noticed."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

import dist_relu as dr
from dist_relu.comm.barrier import abort, control_shape
from dist_relu.comm.handshake import Endpoint
from dist_relu.comm.shared_memory import SharedArray
from dist_relu.runtime.backends.heartbeat import Heartbeat, HeartbeatEndpoint, HeartbeatListener, Link
from dist_relu.runtime.process_info import ProcessInfo, by_node, nodes_of
from dist_relu.runtime.replicated import ReplicatedArrays
from dist_relu.runtime.world import World
from tests.programs import wait_until
from tests.twin import Array


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
    replicas = ReplicatedArrays([range(1), range(1, 2), range(2, 3)], 0, nodes.ask)
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


def test_the_other_nodes_keep_nothing_of_a_call_that_is_over() -> None:
    nodes = Nodes(2)
    replicas = ReplicatedArrays([range(1), range(1, 2)], 0, nodes.ask)
    kept = replicas.zeros((3,), np.float32)
    with replicas.for_a_call() as call:
        made = call.zeros((5,), np.float32)
        assert len(nodes.held(1)) == 2
    assert made.array.shape == (5,)
    assert [shared.array.shape for shared in nodes.held(1)] == [kept.array.shape]
    del kept
    replicas.zeros((1,), np.float32)
    assert [shared.array.shape for shared in nodes.held(1)] == [(1,)]


class Losses:
    """What heartbeats say."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, what: str) -> None:
        self.seen.append(what)


def connected(names: Sequence[str], losses: Losses) -> tuple[list[Heartbeat], list[Array]]:
    """The heartbeats of a coordinator and of the first workers of other nodes, with their control memories."""
    listener = HeartbeatListener(names)
    theirs: list[Link] = []
    others = range(1, len(names))
    threads = [threading.Thread(target=lambda n=node: theirs.append(listener.endpoint(n).connect())) for node in others]
    for thread in threads:
        thread.start()
    ours = listener.accept(others)
    for thread in threads:
        thread.join()
    controls = [SharedArray(control_shape(1), np.int64).array for _ in names]
    heartbeats = [Heartbeat(ours, controls[0], losses)]
    heartbeats += [Heartbeat([link], control, losses) for link, control in zip(theirs, controls[1:], strict=True)]
    return heartbeats, controls


def test_a_call_that_one_node_gives_up_is_given_up_by_all() -> None:
    losses = Losses()
    heartbeats, controls = connected(["Host a", "Host b", "Host c"], losses)
    abort(controls[2], 7)
    wait_until(lambda: all(control[0] == 7 for control in controls))
    for one in heartbeats:
        one.close()
    assert losses.seen == []


def test_a_node_that_says_nothing_any_more_is_named() -> None:
    losses = Losses()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    control = SharedArray(control_shape(1), np.int64).array
    one = Heartbeat([Link(ours, "Host b (rank 2)")], control, losses, timeout_s=0.3)
    wait_until(lambda: bool(losses.seen))
    assert losses.seen == ["Host b (rank 2) has not been heard of for 0.3 s"]
    one.close()
    theirs.close()


def test_who_hears_of_nobody_may_be_cut_off() -> None:
    losses = Losses()
    pairs = [socket.socketpair() for _ in range(2)]
    links = [Link(ours, name) for (ours, _), name in zip(pairs, ["Host b", "Host c"], strict=True)]
    for link in links:
        link.socket.setblocking(False)
    one = Heartbeat(links, SharedArray(control_shape(1), np.int64).array, losses, timeout_s=0.3)
    wait_until(lambda: bool(losses.seen))
    here = socket.gethostname()
    assert losses.seen == [f"Host b and Host c have not been heard of for 0.3 s; host {here} may be cut off"]
    one.close()
    for _, theirs in pairs:
        theirs.close()


def test_a_node_whose_connection_ends_is_named() -> None:
    losses = Losses()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    one = Heartbeat([Link(ours, "Host b (rank 2)")], SharedArray(control_shape(1), np.int64).array, losses)
    theirs.close()
    wait_until(lambda: bool(losses.seen))
    assert losses.seen == ["Host b (rank 2) is gone: its connection was closed"]
    one.close()


def test_who_does_not_know_the_secret_is_nobody() -> None:
    listener = HeartbeatListener(["Host a (rank 0)", "Host b (rank 1)"])
    right = listener.endpoint(1)
    endpoint = Endpoint(["127.0.0.1"], right.endpoint.port)
    wrong = HeartbeatEndpoint(name=right.name, endpoint=endpoint, node=1, secret=b"guessed")

    def guess() -> None:
        with pytest.raises(dr.BackendError, match=r"can't reach Host a \(rank 0\) at any of 127\.0\.0\.1, port"):
            wrong.connect()

    stranger = threading.Thread(target=guess)
    stranger.start()
    with pytest.raises(dr.BackendError, match=r"No connection from Host b \(rank 1\) within"):
        listener.accept([1], timeout_s=1.0)
    stranger.join()

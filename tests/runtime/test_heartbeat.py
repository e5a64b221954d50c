"""How a node that is lost is noticed, and what is given up on one is given up on all."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest

import dist_relu as dr
from dist_relu.comm.barrier import abort, control_shape
from dist_relu.comm.handshake import Endpoint
from dist_relu.comm.shared_memory import SharedArray
from dist_relu.runtime.backends.heartbeat import Heartbeat, HeartbeatEndpoint, HeartbeatListener, Link
from tests.programs import wait_until
from tests.twin import Array


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


@pytest.mark.long
def test_nodes_that_were_suspended_have_not_lost_each_other() -> None:
    program = """
import socket, sys, time
import numpy as np
from dist_relu.runtime.backends.heartbeat import Heartbeat, Link

lost = []
ends = socket.socketpair()
for end in ends:
    end.setblocking(False)
heartbeats = [
    Heartbeat([Link(end, name)], np.zeros(1, np.int64), lost.append, period_s=0.1, timeout_s=1.0)
    for end, name in zip(ends, "ab")
]
print("runs", flush=True)
sys.stdin.readline()
time.sleep(0.3)
print(lost)
for one in heartbeats:
    one.close()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "runs\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.5)
        process.send_signal(signal.SIGCONT)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "[]\n"
